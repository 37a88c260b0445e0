"""Placeholders are replaced in every text of a content, once, and none is left without a value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.prompts.template import (
    MESSAGES_BYTES_MAX,
    MessagesTooLarge,
    NotMessages,
    ValuesMissing,
    messages_of,
)


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", "Hello"),
        ("Hello {{name}}!", "Hello Ada!"),
        ("{{name}}{{name}}", "AdaAda"),
        ("{{ name }} and {{\tother.name-2 }}", "Ada and {{name}}"),
        ("{{größe}}", "L"),
        ("{ {name}} {name} {{}} {{ }} {{a b}} {{#if name}}", None),
        ("{{{name}}}", "{Ada}"),
        ('{"a": {"b": 1}}', None),
        ("", ""),
    ],
)
def test_a_text_is_a_message_of_the_user_s(text: str, expected: str | None) -> None:
    values = {"name": "Ada", "other.name-2": "{{name}}", "größe": "L", "unused": "x"}
    assert messages_of(text, values) == user(text if expected is None else expected)


def test_every_text_of_the_messages_is_filled_and_all_else_is_kept() -> None:
    content = [
        {"role": "system", "content": "You help {{who}}."},
        {
            "role": "user",
            "name": "{{who}}",
            "content": [
                {"type": "text", "text": "Look: {{what}}"},
                {"type": "image_url", "image_url": {"url": "{{url}}", "detail": "{{who}}"}},
            ],
            "{{who}}": None,
            "n": 1.5,
        },
        {"role": "assistant", "tool_calls": []},
    ]
    values = {"who": "Acme", "what": "here", "url": "https://i.example/1"}
    assert messages_of(content, values) == [
        {"role": "system", "content": "You help Acme."},
        {
            "role": "user",
            "name": "Acme",
            "content": [
                {"type": "text", "text": "Look: here"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://i.example/1", "detail": "Acme"},
                },
            ],
            "{{who}}": None,
            "n": 1.5,
        },
        {"role": "assistant", "tool_calls": []},
    ]
    assert content[0]["content"] == "You help {{who}}."


def test_what_has_no_value_is_named_each_once_in_order() -> None:
    content = [{"role": "user", "content": ["{{b}} {{a}}", "{{ b }} {{c}}"]}]
    with pytest.raises(ValuesMissing) as caught:
        messages_of(content, {"c": ""})
    assert caught.value.names == ["b", "a"]
    assert str(caught.value) == "{{b}}, {{a}}"


@pytest.mark.parametrize(
    "content",
    [
        *(None, 7, True, {}, [], ["x"], [{}], [{"role": 7}]),
        {"role": "user", "content": "x"},
        [{"role": "user", "content": "x"}, None],
    ],
)
def test_what_can_be_no_messages_is_refused(content: Any) -> None:
    with pytest.raises(NotMessages):
        messages_of(content, {})


def test_values_do_not_blow_a_small_content_up() -> None:
    value = "ä" * 1_000
    fit = MESSAGES_BYTES_MAX // (len("{{v}}") + 2_000)
    (message,) = messages_of("{{v}}" * fit, {"v": value})
    assert message["content"] == value * fit
    with pytest.raises(MessagesTooLarge):
        messages_of("{{v}}" * (fit + 1), {"v": value})
    with pytest.raises(MessagesTooLarge):
        messages_of("x" * (MESSAGES_BYTES_MAX + 1), {})


@given(st.lists(st.sampled_from(["a", "b", "{", "}", "{{a}}", "{{b}}", " ", "\n"]), max_size=30))
def test_filling_is_replacing(parts: list[str]) -> None:
    text = "".join(parts)
    (message,) = messages_of(text, {"a": "1", "b": "2"})
    plain = text.replace("{{a}}", "\0").replace("{{b}}", "\1")
    if "{{" not in plain:  # what is left has no other placeholder, such as one with a space
        assert message["content"] == plain.replace("\0", "1").replace("\1", "2")
    assert "{{a}}" not in message["content"] and "{{b}}" not in message["content"]
