"""Models that run on encrypted inputs: their weights are public, what they are asked is not.

Each is a file in `model_weights`, whose name is the model's id. An id never changes its weights: a
model that was fitted anew is a new id, so that an answer that was computed once stays right.
"""

from importlib import resources

import msgspec
from msgspec import Struct

from schemas.fhe.linear import padded_size

# What the cubic of a sigmoid takes after the product: the square, and the product with it.
SIGMOID_LEVELS = 2


class Model(Struct, frozen=True):
    """weights * inputs + biases, and perhaps a sigmoid of each.

    accuracy: the share of cases that it was not fitted to and gets right. weights: a row for each
    output. input_ranges: what is scaled to -1 and 1 before it is encrypted; without it, inputs are
    taken as they are. sigmoid: constant, slope and the factor of the cube.
    """

    model_id: str
    name: str
    description: str
    accuracy: float
    input_names: list[str]
    output_names: list[str]
    weights: list[list[float]]
    biases: list[float]
    sigmoid: tuple[float, float, float] | None = None
    input_ranges: list[tuple[float, float]] | None = None

    @property
    def size(self) -> int:
        """Values in a ciphertext before they repeat: the larger side, to a power of two."""
        return padded_size(max(len(self.input_names), len(self.output_names)))

    @property
    def levels(self) -> int:
        """Multiplications one after another."""
        return 1 if self.sigmoid is None else 1 + SIGMOID_LEVELS

    @property
    def row_sum(self) -> float:
        """The largest sum of absolute weights of an output."""
        return max(sum(map(abs, row)) for row in self.weights)

    @property
    def bias_max(self) -> float:
        """The largest absolute bias."""
        return max(map(abs, self.biases))


def _read() -> dict[str, Model]:
    folder = resources.files("schemas").joinpath("fhe", "model_weights")
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    read = (msgspec.json.decode(file.read_bytes(), type=Model) for file in files)
    return {model.model_id: model for model in read}


MODELS = _read()
