"""`weir fhe …`: a client of encrypted computation. The secret key stays in a folder of yours.

`keygen`, `encrypt` and `decrypt` need no server; `run` uploads the evaluation key when the server
does not have it, sends ciphertexts or values, and fetches the result.
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from api.calling import Api, Data, Url
from infra.keyholder import Keyholder
from schemas.fhe.parameters import CKKS_N13, KEY_BYTES_MAX, SEAL_SETS

fhe = typer.Typer(help="Compute on numbers that the server cannot read.", no_args_is_help=True)

Key = Annotated[
    str, typer.Option("--api-key", envvar="WEIR_API_KEY", help="A key with the role compute.")
]
Keys = Annotated[Path, typer.Option("--keys", help="The folder that `weir fhe keygen` made.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write the ciphertext.")]

# Of a piece of a key that is sent in parts.
_PIECE_BYTES = 8_000_000
_WAIT_SECONDS = 30
_UPLOAD_SECONDS = 120.0
_OCTETS = {"Content-Type": "application/octet-stream"}


class NotDone(Exception):
    """The job has no result; one line for a person."""


@fhe.command()
def keygen(
    *,
    params: Annotated[
        str, typer.Option("--params", help=f"One of {', '.join(SEAL_SETS)}.")
    ] = CKKS_N13.params_id,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")] = Path("keys"),
    rotate: Annotated[
        list[int], typer.Option("--rotate", help="A slot step that the server may rotate by.")
    ] = [],  # noqa: B006 - Typer reads it, nothing changes it
) -> None:
    """Make a key pair and an evaluation key. Keep the folder as you keep passwords."""
    if params not in SEAL_SETS:
        raise typer.BadParameter(f"{params!r} is none of {', '.join(SEAL_SETS)}")
    if out.exists():
        raise typer.BadParameter(f"{out} exists already", param_hint="--out")
    with _working("making keys"):
        holder = Keyholder.generated(SEAL_SETS[params], rotate)
        holder.write(out)
    size = sum(map(len, holder.evaluation_key.values()))
    _say(f"keys of {params} in {out}; the evaluation key has {size / 1e6:.1f} MB")


@fhe.command()
def encrypt(
    values: Annotated[list[float], typer.Argument(help="Numbers; put -- before negative ones.")],
    *,
    keys: Keys = Path("keys"),
    out: Out,
) -> None:
    """Encrypt numbers, one to a slot."""
    with _working("encrypting"):
        out.write_bytes(Keyholder.read(keys, SEAL_SETS).encrypt(values))
    _say(f"{len(values)} numbers in {out}")


@fhe.command()
def run(
    operation: Annotated[str, typer.Argument(help="add, multiply, ...")],
    operands: Annotated[list[str], typer.Argument(help="Files of ciphertexts, or numbers.")],
    *,
    keys: Keys = Path("keys"),
    out: Out,
    data: Data = Path("data"),
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Have the server compute, and fetch the result."""
    api, holder = Api(data, url, api_key), Keyholder.read(keys, SEAL_SETS)
    key_id = _uploaded(api, holder)
    body = {"key_id": key_id, "operands": [_operand(text) for text in operands]}
    with _working(f"{operation} under {key_id}"):
        job = api.request(
            "POST",
            f"/api/v1/compute/{operation}?wait={_WAIT_SECONDS}",
            body,
            timeout=2 * _WAIT_SECONDS,
        )
        while job["status"] == "queued":
            job = api.request("GET", f"/api/v1/jobs/{job['job_id']}")
    if job["status"] != "succeeded":
        raise NotDone(f"{job['job_id']} has {job['status']}: {(job['error'] or {}).get('message')}")
    out.write_bytes(base64.b64decode(job["result"]["ciphertext"]))
    _say(f"{job['job_id']} took {job['cpu_ms']:.1f} ms of a processor; its result is in {out}")


@fhe.command()
def decrypt(
    ciphertext: Annotated[Path, typer.Argument(help="A file of `run` or `encrypt`.")],
    *,
    keys: Keys = Path("keys"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many numbers.")] = 1,
) -> None:
    """Decrypt a result and print its first numbers, one a line."""
    from rich.console import Console

    with _working("decrypting"):
        values = Keyholder.read(keys, SEAL_SETS).decrypt(ciphertext.read_bytes(), count)
    console = Console(highlight=False)
    for value in values:
        console.print(f"{value:.6f}")


def register(app: typer.Typer) -> None:
    """Add these commands to the `weir` command."""
    app.add_typer(fhe, name="fhe")


def _operand(text: str) -> dict[str, Any]:
    """A number, or a file's ciphertext."""
    path = Path(text)
    if path.is_file():
        return {"ciphertext": base64.b64encode(path.read_bytes()).decode()}
    try:
        return {"value": float(text)}
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a file nor a number") from None


def _uploaded(api: Api, holder: Keyholder) -> str:
    """The id of the evaluation key, sent unless the server has it already."""
    parts = holder.evaluation_key
    hashes = sorted(sha256(part).hexdigest() for part in parts.values())
    cursor = ""
    while True:
        page = api.request("GET", f"/api/v1/keys?limit=100&cursor={cursor}")
        for item in page["data"]:
            if sorted(part["sha256"] for part in item["parts"]) == hashes:
                return str(item["key_id"])
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    if len(parts) == 1 and sum(map(len, parts.values())) <= KEY_BYTES_MAX:
        with _working("sending the evaluation key"):
            (content,) = parts.values()
            made = api.request(
                "POST", "/api/v1/keys", content=content, headers=_OCTETS, timeout=_UPLOAD_SECONDS
            )
        return str(made["key_id"])
    return _sent_in_parts(api, holder.params.params_id, parts)


def _sent_in_parts(api: Api, params_id: str, parts: Mapping[str, bytes]) -> str:
    from rich.console import Console
    from rich.progress import Progress

    declared = [{"kind": kind, "size_bytes": len(data)} for kind, data in parts.items()]
    body = {"params_id": params_id, "parts": declared}
    upload = api.request("POST", "/api/v1/keys/uploads", body)
    path = f"/api/v1/keys/uploads/{upload['upload_id']}"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("sending the evaluation key", total=sum(map(len, parts.values())))
        for number, data in enumerate(parts.values()):
            for at in range(0, len(data), _PIECE_BYTES):
                piece = data[at : at + _PIECE_BYTES]
                api.request(
                    "PATCH",
                    f"{path}/parts/{number}",
                    content=piece,
                    headers={**_OCTETS, "Upload-Offset": str(at)},
                    timeout=_UPLOAD_SECONDS,
                )
                progress.advance(bar, len(piece))
    hashes = [sha256(data).hexdigest() for data in parts.values()]
    return str(api.request("POST", f"{path}/complete", {"sha256s": hashes})["key_id"])


@contextmanager
def _working(what: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
