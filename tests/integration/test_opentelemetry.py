"""OpenTelemetry as users have it: the real SDK and exporter, clients that others instrumented."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import requests
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from infra.embedded.stack import Stack
from tests.integration.openai_server import (
    ANSWER,
    MODEL,
    SERVED_MODEL,
    TOKENS_IN,
    TOKENS_OUT,
    openai_server,
)
from tests.integration.served import Served, headers_of

QUESTION = "When does order 1142 ship?"
# How long an exporter goes on while the broker is away.
PATIENCE_SECONDS = 90


class Sender:
    """A tracer whose spans go to the served API through the real exporter.

    answers: of the API, as they came; `answered` is set with the first of them.
    """

    def __init__(self, service: str, wrap: Callable[[SpanExporter], SpanExporter]) -> None:
        self.answers: list[requests.Response] = []
        self.answered = threading.Event()
        session = requests.Session()
        session.hooks["response"].append(self._note)
        exporter = OTLPSpanExporter(session=session, timeout=PATIENCE_SECONDS)
        self.provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self.provider.add_span_processor(BatchSpanProcessor(wrap(exporter)))
        self.tracer = self.provider.get_tracer("tests")

    def _note(self, answer: requests.Response, *args: Any, **kwargs: Any) -> None:
        self.answers.append(answer)
        self.answered.set()

    def flush(self) -> str:
        """Send what there is; where the last of it lies in the log."""
        assert self.provider.force_flush(PATIENCE_SECONDS * 1000)
        assert self.answers[-1].status_code == 200, self.answers[-1].content
        return self.answers[-1].headers["x-log-position"]


@pytest.fixture
def configured(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The environment that points an exporter at the served API."""
    made = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{served.url}/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": f"X-Wax-Key={served.made.api_key}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return served


@contextmanager
def sending(
    service: str, wrap: Callable[[SpanExporter], SpanExporter] = lambda exporter: exporter
) -> Iterator[Sender]:
    sender = Sender(service, wrap)
    try:
        yield sender
    finally:
        sender.provider.shutdown()


def calls_of(served: Served, position: str, **query: Any) -> dict[str, Any]:
    """The list of LLM calls, once it holds the position."""
    answer = httpx.get(
        f"{served.url}/api/v1/observability/llm-calls/",
        params={**query, "min_position": position},
        headers=headers_of(served.made)["user"],
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "instrumentor", [OpenInference, OpenLLMetry], ids=["openinference", "openllmetry"]
)
def test_an_instrumented_client_s_calls_are_seen_with_their_run_and_tokens(
    configured: Served, instrumentor: Any
) -> None:
    agent = f"support {instrumentor.__module__}"
    instrumentation = instrumentor()
    with openai_server() as url, sending(agent) as sender:
        instrumentation.instrument(tracer_provider=sender.provider)
        try:
            with (
                sender.tracer.start_as_current_span("answer a ticket") as root,
                openai.OpenAI(base_url=url, api_key="sk-none", max_retries=0) as client,
            ):
                root.set_attribute("session.id", "sess_1")
                asked: Any = [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": QUESTION},
                ]
                whole = client.chat.completions.create(model=MODEL, messages=asked)
                assert whole.choices[0].message.content == ANSWER
                streamed = client.chat.completions.create(
                    model=MODEL,
                    messages=asked,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                assert len(list(streamed)) > 1
                client.embeddings.create(model=MODEL, input=QUESTION)
        finally:
            instrumentation.uninstrument()
        found = calls_of(configured, sender.flush(), agent=agent, sort="created_at")
    whole_call, streamed_call, embedding = found["results"]
    for call in (whole_call, streamed_call):
        assert (call["model"], call["workflow_name"]) == (SERVED_MODEL, "answer a ticket")
        assert (call["tokens_in"], call["tokens_out"]) == (TOKENS_IN, TOKENS_OUT)
        assert call["prompt_preview"] == QUESTION
        assert call["response_preview"].strip() == ANSWER
    assert (embedding["model"], embedding["tokens_in"]) == (MODEL, TOKENS_IN)
    assert embedding["prompt_preview"].startswith(QUESTION)
    assert len({call["run_id"] for call in found["results"]}) == 1


class Twice(SpanExporter):
    """An exporter that lost its first answer and sends all again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Any) -> SpanExportResult:
        assert self._exporter.export(spans) is SpanExportResult.SUCCESS
        return self._exporter.export(spans)

    def shutdown(self) -> None:
        self._exporter.shutdown()


def one_call(sender: Sender) -> None:
    """A run of one LLM call."""
    usage = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2}
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **usage}
    with (
        sender.tracer.start_as_current_span("main"),
        sender.tracer.start_as_current_span("chat m", attributes=chat),
    ):
        pass


def test_a_batch_that_is_sent_twice_counts_once(configured: Served) -> None:
    with sending("twice", Twice) as sender:
        one_call(sender)
        found = calls_of(configured, sender.flush(), agent="twice")
        assert len(sender.answers) == 2
    assert (found["count"], found["aggregates"]["total_tokens"]) == (1, 7)


def test_spans_of_several_processes_are_one_run(configured: Served) -> None:
    with sending("front") as front, sending("back") as back:
        with front.tracer.start_as_current_span("main") as root:
            # A process of its own knows of the other's span by its context alone.
            remote = set_span_in_context(NonRecordingSpan(root.get_span_context()))
            attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
            back.tracer.start_span("chat m", context=remote, attributes=attributes).end()
            back.flush()
        found = calls_of(configured, front.flush(), agent="front")
    (call,) = found["results"]
    assert call["workflow_name"] == "main"


def test_an_exporter_comes_back_after_a_503_and_its_spans_count_once(
    configured: Served, stack: Stack
) -> None:
    with sending("patient") as sender, ThreadPoolExecutor(1) as beside:
        stack.halt("kafka")
        try:
            one_call(sender)
            flushed = beside.submit(sender.flush)
            assert sender.answered.wait(PATIENCE_SECONDS)
        finally:
            stack.launch("kafka")
        first = sender.answers[0]
        assert (first.status_code, first.headers["retry-after"]) == (503, "2")
        assert first.headers["content-type"] == "application/x-protobuf"
        found = calls_of(configured, flushed.result(PATIENCE_SECONDS), agent="patient")
    assert (found["count"], found["aggregates"]["total_tokens"]) == (1, 7)
