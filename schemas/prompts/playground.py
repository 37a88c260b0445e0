"""Events of `prompts.playground/provider`: which server runs the prompts that people try."""

from msgspec import Struct

from schemas.types import Micros, Text

STREAM = "prompts.playground"
STREAM_ID = "provider"  # one of each tenant


class PlaygroundProviderSet(Struct, frozen=True, tag="prompts.playground_provider_set.v1"):
    """From now on prompts are tried on the server at `base_url`.

    sealed_key: the key that it takes, encrypted for this tenant and this address. key_hint: the
    key's last characters, for people; empty where the key is short.
    """

    base_url: Text
    sealed_key: Text
    key_hint: Text
    set_by: Text
    set_at: Micros


class PlaygroundProviderRemoved(Struct, frozen=True, tag="prompts.playground_provider_removed.v1"):
    """From now on prompts are tried nowhere."""

    removed_by: Text
    removed_at: Micros


PlaygroundEvent = PlaygroundProviderSet | PlaygroundProviderRemoved
