"""The prompts read models: every event, the statements it gives, no database."""

from collections.abc import Iterable
from typing import Any

import pytest

from projections.prompts import VIEWS
from projections.prompts.playground_providers import PLAYGROUND_PROVIDERS
from projections.prompts.prompt_calls import per_hash
from projections.prompts.prompt_label_moves import PROMPT_LABEL_MOVES
from projections.prompts.prompt_labels import PROMPT_LABELS
from projections.prompts.prompt_versions import (
    PREVIEW_CHARACTERS,
    PROMPT_VERSIONS,
    preview_of,
)
from projections.prompts.prompts import PROMPTS
from projections.runner import fold, reduce_all
from projections.statements import Delete, Put, Set, Statement, View
from schemas.envelope import Actor, Envelope
from schemas.prompts import EVENTS
from schemas.prompts.playground import PlaygroundProviderRemoved, PlaygroundProviderSet
from schemas.prompts.prompt import (
    PromptCreated,
    PromptDeleted,
    PromptDescribed,
    PromptLabelMoved,
    PromptLabelRemoved,
    PromptRenamed,
    PromptVersionAdded,
)

AT = 1_700_000_000_000_000
HASH = "ab" * 32
PROMPT = {"tenant": "ten_1", "id": "prm_1"}
PART = {"tenant": "ten_1", "prompt_id": "prm_1"}
Expected = list[tuple[View, Statement]]


def envelope(version: int) -> Envelope:
    actor = Actor("user", "usr_9", "Root")
    return Envelope("evt_1", "x", "ten_1", "prompts.prompt/prm_1", version, AT, actor)


# In the order of a life.
CASES: list[tuple[Any, Expected]] = [
    (
        PlaygroundProviderSet("https://llm.example/v1", "c2VhbGVk", "4f2a", "ada", AT),
        [
            (
                PLAYGROUND_PROVIDERS,
                Put(
                    {"tenant": "ten_1"},
                    {
                        "base_url": "https://llm.example/v1",
                        "sealed_key": "c2VhbGVk",
                        "key_hint": "4f2a",
                        "set_by": "ada",
                        "set_at": AT,
                    },
                ),
            )
        ],
    ),
    (
        PlaygroundProviderRemoved("ada", AT + 1),
        [(PLAYGROUND_PROVIDERS, Delete({"tenant": "ten_1"}))],
    ),
    (
        PromptCreated("greet", "Greets", "text", ["a"], '{"b":1.0}', '{"c":2}', "ada", AT),
        [
            (
                PROMPTS,
                Put(
                    PROMPT,
                    {
                        "name": "greet",
                        "description": "Greets",
                        "prompt_type": "text",
                        "tags": '["a"]',
                        "metadata": '{"b":1.0}',
                        "config": '{"c":2}',
                        "latest_version": 0,
                        "created_by": "ada",
                        "created_at": AT,
                        "updated_at": AT,
                    },
                ),
            )
        ],
    ),
    (
        PromptVersionAdded(1, '"Hello"', HASH, '{"c":2}', "Initial version", "ada", AT),
        [
            (PROMPTS, Set(PROMPT, {"latest_version": 1, "updated_at": AT})),
            (
                PROMPT_VERSIONS,
                Put(
                    PART | {"version": 1},
                    {
                        "content": '"Hello"',
                        "content_preview": "Hello",
                        "content_hash": HASH,
                        "config": '{"c":2}',
                        "commit_message": "Initial version",
                        "created_by": "ada",
                        "created_at": AT,
                    },
                ),
            ),
        ],
    ),
    (
        PromptLabelMoved("production", 1, 0, 1, "ada", AT + 1),
        [
            (PROMPTS, Set(PROMPT, {"updated_at": AT + 1})),
            (PROMPT_LABELS, Put(PART | {"label": "production"}, {"version": 1})),
            (
                PROMPT_LABEL_MOVES,
                Put(
                    PART | {"number": 1},
                    {
                        "label": "production",
                        "version": 1,
                        "from_version": None,
                        "moved_by": "ada",
                        "moved_at": AT + 1,
                    },
                ),
            ),
        ],
    ),
    (
        PromptLabelRemoved("production", 1, 2, "bob", AT + 2),
        [
            (PROMPTS, Set(PROMPT, {"updated_at": AT + 2})),
            (PROMPT_LABELS, Delete(PART | {"label": "production"})),
            (
                PROMPT_LABEL_MOVES,
                Put(
                    PART | {"number": 2},
                    {
                        "label": "production",
                        "version": None,
                        "from_version": 1,
                        "moved_by": "bob",
                        "moved_at": AT + 2,
                    },
                ),
            ),
        ],
    ),
    (
        PromptRenamed("hello", "greet", AT + 3),
        [(PROMPTS, Set(PROMPT, {"name": "hello", "updated_at": AT + 3}))],
    ),
    (
        PromptDescribed("", ["b", "c"], "{}", AT + 4),
        [
            (
                PROMPTS,
                Set(
                    PROMPT,
                    {
                        "description": "",
                        "tags": '["b","c"]',
                        "metadata": "{}",
                        "updated_at": AT + 4,
                    },
                ),
            )
        ],
    ),
    (
        PromptDeleted("hello", 2, ["a", "b"], 2, AT + 5),
        [
            (PROMPTS, Delete(PROMPT)),
            *((PROMPT_VERSIONS, Delete(PART | {"version": number})) for number in (1, 2)),
            *((PROMPT_LABELS, Delete(PART | {"label": label})) for label in ("a", "b")),
            *((PROMPT_LABEL_MOVES, Delete(PART | {"number": n})) for n in (1, 2)),
        ],
    ),
]


@pytest.mark.parametrize(
    ("number", "event", "expected"),
    [(number, *case) for number, case in enumerate(CASES, 1)],
    ids=[type(event).__name__ for event, _ in CASES],
)
def test_an_event_gives_its_statements(number: int, event: Any, expected: Expected) -> None:
    made = reduce_all(VIEWS, [(envelope(number), event)])
    assert [(view.name, item) for view, item in made] == [
        (view.name, item) for view, item in expected
    ]


def test_every_event_of_the_domain_has_a_case() -> None:
    assert {type(event) for event, _ in CASES} == set(EVENTS)


def rows(view: View, history: Iterable[Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The table that a stream's events give, as the statements mean it."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    events = [(envelope(number), event) for number, event in enumerate(history, 1)]
    twice = [made for _, made in reduce_all([view], [*events, *events])]
    for batch in fold(view, twice):
        for key, statement in batch.items():
            match statement:
                case Put():
                    table[key] = table.get(key, {}) | dict(statement.values)
                case Set() if key in table:
                    table[key] |= statement.values
                case Delete():
                    table.pop(key, None)
    return table


LIFE = [event for event, _ in CASES]


def test_a_life_that_is_reduced_twice_is_as_reduced_once() -> None:
    kept = {view.name: rows(view, LIFE[:-1]) for view in VIEWS}
    assert {name: len(table) for name, table in kept.items()} == {
        "prompts": 1,
        "prompt_versions": 1,
        "prompt_labels": 0,
        "prompt_label_moves": 2,
        "playground_providers": 0,
    }
    assert (
        kept["prompts"]["ten_1", "prm_1"] | {"name": "hello", "latest_version": 1}
        == (kept["prompts"]["ten_1", "prm_1"])
    )


@pytest.mark.parametrize(
    "view",
    [view for view in VIEWS if view is not PLAYGROUND_PROVIDERS],
    ids=lambda view: view.name,
)
def test_nothing_is_left_of_a_deleted_prompt(view: View) -> None:
    life = [*LIFE[2:5], PromptDeleted("greet", 1, ["production"], 1, AT + 9)]
    assert rows(view, life[:-1])
    assert rows(view, life) == {}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_statements_name_columns_of_the_view(view: View) -> None:
    for _, expected in CASES:
        for of, statement in expected:
            if of is view:
                assert set(statement.key) == set(view.key)
                if isinstance(statement, Put):
                    assert set(statement.values) == set(view.columns) - set(view.key)
                elif isinstance(statement, Set):
                    assert set(statement.values) <= set(view.columns) - set(view.key)


@pytest.mark.parametrize(
    ("content", "preview"),
    [
        ('"Hello"', "Hello"),
        ('"a\\nb"', "a\nb"),
        ('[{"role": "system"}]', '[{"role": "system"}]'),
        ("7", "7"),
        ('"' + "ä" * 300 + '"', "ä" * PREVIEW_CHARACTERS),
        ("[" + "1, " * 300 + "1]", ("[" + "1, " * 300)[:PREVIEW_CHARACTERS]),
    ],
)
def test_a_preview_is_the_start_of_a_string_or_of_the_json(content: str, preview: str) -> None:
    assert preview_of(content) == preview


def test_usage_is_asked_by_parameters() -> None:
    sql, parameters = per_hash("ten_1", [HASH])
    assert parameters == {"tenant": "ten_1", "hashes": [HASH]}
    assert HASH not in sql
