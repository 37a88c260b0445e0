"""Completions through the real client, from servers that answer well, badly, late or not at all."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from infra import completions as module
from infra.completions import (
    AT_ONCE_MAX,
    AT_ONCE_OF_ONE_MAX,
    Completion,
    CompletionFailed,
    Completions,
    Provider,
    Question,
    TooManyAtOnce,
)
from tests.integration.openai_server import (
    ANSWER,
    SERVED_MODEL,
    TOKENS_IN,
    TOKENS_OUT,
    Answering,
    Asked,
    Sent,
    answered,
    completion,
    json_sent,
    openai_server,
    refused,
)

KEY = "sk-0123456789abcdef-4f2a"
QUESTION = Question("gpt-4o-mini", [{"role": "user", "content": "When?"}], 0.7, 1024)


@asynccontextmanager
async def asking(allowed: tuple[str, ...] = ("127.0.0.0/8",), **more: Any) -> AsyncIterator[Any]:
    made = Completions(allowed, **more)
    try:
        yield made
    finally:
        await made.close()


async def failure(answering: Answering, **more: Any) -> str:
    """What is told of a server that answers so."""
    with openai_server(answering) as url:
        async with asking(**more) as completions:
            with pytest.raises(CompletionFailed) as caught:
                await completions.complete(Provider(url, KEY), QUESTION)
    return str(caught.value)


async def test_a_model_is_asked_what_was_to_be_asked_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-operator")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-operator")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-operator")
    custom = "Authorization: Bearer sk-of-the-operator\nX-Own: also-of-the-operator"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    seen: list[Asked] = []

    def answering(asked: Asked) -> Sent:
        seen.append(asked)
        return answered(asked)

    with openai_server(answering) as url:
        async with asking() as completions:
            found = await completions.complete(Provider(url, KEY), QUESTION)
    assert found == Completion(
        ANSWER, TOKENS_IN, TOKENS_OUT, SERVED_MODEL, "stop", found.latency_ms
    )
    assert 0 <= found.latency_ms < 60_000
    ((body, headers),) = seen
    assert body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "When?"}],
        "temperature": 0.7,
        "max_tokens": 1024,
    }
    assert headers["authorization"] == f"Bearer {KEY}"
    assert not [value for value in headers.values() if "of-the-operator" in value]
    assert not {"x-own", "openai-organization", "openai-project"} & set(headers)


async def test_each_question_goes_to_its_own_provider_with_its_own_key() -> None:
    seen: dict[str, str] = {}

    @contextmanager
    def provider(name: str) -> Iterator[Provider]:
        def answering(asked: Asked) -> Sent:
            seen[name] = asked.headers["authorization"]
            return json_sent(completion(name))

        with openai_server(answering) as url:
            yield Provider(url, f"sk-{name}")

    with provider("one") as one, provider("two") as two:
        async with asking() as completions:
            found = await asyncio.gather(
                *(completions.complete(provider, QUESTION) for provider in (one, two))
            )
    assert [item.output for item in found] == ["one", "two"]
    assert seen == {"one": "Bearer sk-one", "two": "Bearer sk-two"}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_refusal_is_told_in_the_provider_s_words_and_asked_once(status: int) -> None:
    seen = []

    def answering(asked: Asked) -> Sent:
        seen.append(asked)
        return refused(status, "It will not do")

    assert await failure(answering) == f"The provider answered {status}: It will not do"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (Sent(502, b"<html>bad gateway</html>", "text/html"), "502: <html>bad gateway</html>"),
        (Sent(500, b"", "text/plain"), "500: nothing more"),
        (json_sent({"error": "plain"}, 400), '400: {"error": "plain"}'),
        (json_sent({"error": {"message": 7}}, 400), '400: {"error": {"message": 7}}'),
        (json_sent({"message": "bare"}, 400), "400: bare"),
        (json_sent(["list"], 418), '418: ["list"]'),
        (Sent(302, b"", "text/plain"), "302: nothing more"),
        (refused(400, "x" * 5_000), "400: " + "x" * 1_000),
        (refused(400, "half \ud800"), "400: half ?"),
    ],
)
async def test_errors_of_another_form_are_told_as_they_are(sent: Sent, told: str) -> None:
    assert await failure(lambda asked: sent) == f"The provider answered {told}"


@pytest.mark.parametrize(
    "sent",
    [
        Sent(200, b"It ships on Monday.", "text/plain"),
        Sent(200, b"", "application/json"),
        Sent(200, b'{"choices": ', "application/json"),
        Sent(200, b"\xff\xfe", "application/json"),
        Sent(200, b"[" * 100_000, "application/json"),
        Sent(200, b"null", "application/json"),
        json_sent({}),
        json_sent({**completion(), "choices": []}),
        json_sent({**completion(), "choices": [{"message": {"content": 7}}]}),
        json_sent({**completion(), "usage": {"prompt_tokens": -1}}),
        json_sent({**completion(), "usage": {"prompt_tokens": 10**15}}),
        json_sent({**completion(), "usage": {"prompt_tokens": "17"}}),
    ],
    ids=range(12),
)
async def test_what_is_no_completion_is_a_failure(sent: Sent) -> None:
    assert await failure(lambda asked: sent) == "The provider's answer is no chat completion"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
async def test_a_server_that_counts_nothing_and_says_nothing_has_answered(usage: Any) -> None:
    bare = {"choices": [{"message": {"role": "assistant", "content": None}}], "usage": usage}
    with openai_server(lambda asked: json_sent(bare)) as url:
        async with asking() as completions:
            found = await completions.complete(Provider(url, KEY), QUESTION)
    assert found == Completion("", 0, 0, "", "", found.latency_ms)


async def test_names_that_a_server_makes_up_have_a_bound() -> None:
    made = completion()
    made["model"] = made["choices"][0]["finish_reason"] = "x" * 1_000_000
    with openai_server(lambda asked: json_sent(made)) as url:
        async with asking() as completions:
            found = await completions.complete(Provider(url, KEY), QUESTION)
    assert (len(found.model), len(found.finish_reason)) == (200, 200)


async def test_who_does_not_answer_is_waited_for_so_long_and_no_longer() -> None:
    ended = threading.Event()

    def silent(asked: Asked) -> Sent:
        ended.wait(60)
        return answered(asked)

    try:
        told = await failure(silent, seconds=0.3)
    finally:
        ended.set()
    assert told == "The provider did not answer within 0.3 s"


async def test_who_answers_drop_by_drop_is_not_waited_for_for_ever() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asking(seconds=0.5) as completions:
            with pytest.raises(CompletionFailed, match=r"did not answer within 0\.5 s"):
                await completions.complete(Provider(f"http://127.0.0.1:{port}", KEY), QUESTION)


async def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    with openai_server() as url:
        gone = url
    async with asking() as completions:
        with pytest.raises(CompletionFailed, match=r"^The provider cannot be reached: "):
            await completions.complete(Provider(gone, KEY), QUESTION)


async def test_a_private_address_is_refused_unless_it_is_allowed() -> None:
    seen: list[Asked] = []

    def answering(asked: Asked) -> Sent:
        seen.append(asked)
        return answered(asked)

    told = await failure(answering, allowed=())
    assert told.startswith("The provider's address is not public") and "WEIR_EGRESS_ALLOW" in told
    assert seen == []


async def test_an_answer_that_is_too_large_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1_000)
    told = await failure(lambda asked: json_sent(completion("x" * 1_000)))
    assert told == "The provider sent an answer of more than 1000 bytes"


async def test_the_key_is_in_no_error_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = refused(401, f"Incorrect API key provided: {KEY}.")
    told = await failure(lambda asked: echo)
    assert told == "The provider answered 401: Incorrect API key provided: [the key]."
    assert caplog.records
    assert KEY not in caplog.text


async def test_of_a_key_at_the_edge_of_what_is_told_no_part_is_left() -> None:
    told = await failure(lambda asked: refused(400, "x" * 990 + KEY))
    assert told.endswith("x[the key]")


async def test_what_is_too_short_for_a_key_spoils_no_message() -> None:
    with openai_server(lambda asked: refused(400, "none of it")) as url:
        async with asking() as completions:
            with pytest.raises(CompletionFailed, match="400: none of it"):
                await completions.complete(Provider(url, "none"), QUESTION)


async def test_the_error_of_a_provider_has_no_cause_that_holds_its_request() -> None:
    with openai_server(lambda asked: refused(500, "no")) as url:
        async with asking() as completions:
            with pytest.raises(CompletionFailed) as caught:
                await completions.complete(Provider(url, KEY), QUESTION)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_so_many_are_waited_for_at_once_of_one_and_in_all() -> None:
    completions = Completions()
    with completions.reserved("ten_1", AT_ONCE_OF_ONE_MAX):
        with pytest.raises(TooManyAtOnce), completions.reserved("ten_1", 1):
            pass
        with completions.reserved("ten_2", 1):
            pass
    with pytest.raises(ZeroDivisionError), completions.reserved("ten_1", AT_ONCE_OF_ONE_MAX):
        raise ZeroDivisionError
    with completions.reserved("ten_1", AT_ONCE_OF_ONE_MAX):  # all room came back
        pass
    owners = AT_ONCE_MAX // AT_ONCE_OF_ONE_MAX
    held = [completions.reserved(f"ten_{n}", AT_ONCE_OF_ONE_MAX) for n in range(owners)]
    for room in held:
        room.__enter__()
    with pytest.raises(TooManyAtOnce), completions.reserved("ten_more", 1):
        pass
    held.pop().__exit__(None, None, None)
    with completions.reserved("ten_more", 1):
        pass
