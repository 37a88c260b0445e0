"""Lines of a tail: for a person, and for a program."""

import json

import msgspec
from rich.console import Console

from schemas.envelope import Actor
from streams.replay import Entry, decode
from streams.tail import json_line, pretty_line
from tests.streams.records import FakeRecord, sample_codec, sample_record

CODEC = sample_codec()


def _entry(number: int = 4) -> Entry:
    return decode(sample_record(CODEC, number), CODEC)


def test_an_event_is_one_line_that_says_where_when_whose_what_and_who() -> None:
    line = pretty_line(_entry()).plain
    assert line.startswith(
        "billing:0:4 2023-11-14T22:13:24Z ten_1 billing.sample_taken.v1 "
        'billing.sample/1#5 by user:Ada {"name":'
    )
    assert "\n" not in line


def test_colours_change_nothing_of_the_text() -> None:
    console = Console(force_terminal=True, soft_wrap=True, highlight=False, width=40)
    with console.capture() as captured:
        console.print(pretty_line(_entry()))
    shown = captured.get()
    assert "\x1b[" in shown
    assert shown.count("\n") == 1
    # Text, not markup: a bracket in the data is no style.
    assert '"lines":[{' in shown


def test_a_strangers_name_cannot_command_the_terminal() -> None:
    entry = _entry()
    assert entry.envelope is not None
    actor = Actor("agent", "agt_1", "Eve\x1b]0;owned\x07\nten_1 forged line \u202e")
    entry = msgspec.structs.replace(
        entry, envelope=msgspec.structs.replace(entry.envelope, actor=actor)
    )
    line = pretty_line(entry).plain
    assert line.isprintable()
    assert "by agent:Eve\\x1b]0;owned\\x07\\nten_1 forged line \\u202e " in line


def test_what_is_no_event_shows_its_key_and_its_json() -> None:
    entry = decode(FakeRecord(topic="replies", key=b"api_1", value=b'{"a": 1}'), CODEC)
    assert pretty_line(entry).plain == 'replies:0:0 2023-11-14T22:13:20Z key=api_1 {"a":1}'


def test_what_cannot_be_decoded_says_so() -> None:
    entry = decode(FakeRecord(value=b"\xff\xfe", key=None), CODEC)
    line = pretty_line(entry).plain
    assert line.startswith("billing:0:0 2023-11-14T22:13:20Z ")
    assert line.endswith("(2 bytes)")


def test_a_line_for_programs_is_a_row_of_an_export() -> None:
    row = json.loads(json_line(_entry()))
    assert (row["position"], row["id"], row["version"]) == ("billing:0:4", "evt_4", 5)
    assert row["data"]["count"] == 4 * 2**40
