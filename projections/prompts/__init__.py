"""Read models of the prompts domain."""

from projections.prompts.playground_providers import PLAYGROUND_PROVIDERS
from projections.prompts.prompt_label_moves import PROMPT_LABEL_MOVES
from projections.prompts.prompt_labels import PROMPT_LABELS
from projections.prompts.prompt_versions import PROMPT_VERSIONS
from projections.prompts.prompts import PROMPTS
from projections.statements import View

VIEWS: list[View] = [
    PROMPTS,
    PROMPT_VERSIONS,
    PROMPT_LABELS,
    PROMPT_LABEL_MOVES,
    PLAYGROUND_PROVIDERS,
]
