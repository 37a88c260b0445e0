"""A prompt's content made into messages for a model: placeholders replaced by their values.

`{{name}}` is a placeholder, with or without spaces inside; a name has letters, digits, `_`, `.` and
`-`. Values are put in once: what looks like a placeholder in a value is text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLACEHOLDER = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
MESSAGES_BYTES_MAX = 4 * 1024 * 1024


class NotMessages(ValueError):
    """The content is neither a text nor a list of messages."""


class ValuesMissing(ValueError):
    """Placeholders without a value; `names` in the order in which they come."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(f"{{{{{name}}}}}" for name in names))
        self.names = names


class MessagesTooLarge(ValueError):
    """With all values in, the messages are larger than MESSAGES_BYTES_MAX."""


def messages_of(content: Any, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """The messages that a content means, a text being one of the user's.

    content: a JSON value. Every text in it, at any depth, has its placeholders replaced by their
    values. Raises NotMessages, ValuesMissing, MessagesTooLarge.
    """
    if isinstance(content, str):
        content = [{"role": "user", "content": content}]
    if not isinstance(content, list) or not content or not all(map(_is_message, content)):
        raise NotMessages("Expected a text, or a list of messages that each have a `role`")
    if missing := [name for name in dict.fromkeys(_names(content)) if name not in values]:
        raise ValuesMissing(missing)
    filled: list[dict[str, Any]] = _Filling(values).filled(content)
    return filled


def _is_message(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("role"), str)


def _names(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield from _PLACEHOLDER.findall(found)
    elif isinstance(found, list):
        for item in found:
            yield from _names(item)
    elif isinstance(found, dict):
        for item in found.values():
            yield from _names(item)


class _Filling:
    """Puts values in, as long as there is room: a placeholder may come often, its value be long."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._sizes = {name: len(value.encode()) for name, value in values.items()}
        self._left = MESSAGES_BYTES_MAX

    def filled(self, found: Any) -> Any:
        if isinstance(found, str):
            self._take(len(found.encode()))
            return _PLACEHOLDER.sub(self._put, found)
        if isinstance(found, list):
            return [self.filled(item) for item in found]
        if isinstance(found, dict):
            return {name: self.filled(item) for name, item in found.items()}
        return found

    def _put(self, place: "re.Match[str]") -> str:
        self._take(self._sizes[place[1]])
        return self._values[place[1]]

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise MessagesTooLarge(f"At most {MESSAGES_BYTES_MAX} bytes fit, values included")
