"""Spans to events, without a server: what each convention's attributes become."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.observability.otlp.mapping import ITEM_MAX, Rejected, Run, take
from api.observability.otlp.reported import Happening, Origin, ReportedSpan
from schemas.observability.run import (
    LlmCall,
    LlmCallsRecorded,
    RunCompleted,
    RunEvent,
    RunStarted,
    Span,
    SpansRecorded,
)
from streams.telemetry import MAX_EVENT_BYTES, codec
from tests.api.observability.otlp.recorded import (
    ANSWER,
    GEN_AI,
    OPENINFERENCE,
    OPENLLMETRY,
    QUESTION,
    SYSTEM,
)

TRACE, SPAN, PARENT = "a1" * 16, "b2" * 8, "c3" * 8
BEGAN = 1_736_942_400_000_000_000
NOW = 1_800_000_000_000_000
CONVENTIONS = {"gen_ai": GEN_AI, "openllmetry": OPENLLMETRY, "openinference": OPENINFERENCE}


def reported(attributes: dict[str, Any] | None = None, **changes: Any) -> ReportedSpan:
    """A span that took 1.5 s, a child unless told otherwise."""
    given: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": PARENT,
        "name": "chat gpt-4o-mini",
        "kind": 3,
        "started_at": BEGAN,
        "ended_at": BEGAN + 1_500_000_000,
        "attributes": attributes or {},
        "events": [],
        "status": 0,
        "message": "",
        "origin": Origin({"service.name": "shop"}, "my.instrumentation"),
    }
    return ReportedSpan(**{**given, **changes})


def events_of(*spans: ReportedSpan) -> list[RunEvent]:
    runs: dict[str, Run] = {}
    for span in spans:
        take(span, runs, NOW)
    (run,) = runs.values()
    return run.events()


def span_of(span: ReportedSpan) -> Span:
    (event,) = (event for event in events_of(span) if isinstance(event, SpansRecorded))
    return event.spans[0]


def call_of(span: ReportedSpan) -> LlmCall:
    (event,) = (event for event in events_of(span) if isinstance(event, LlmCallsRecorded))
    return event.calls[0]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_call_of_a_model_is_the_same_llm_call_in_every_convention(name: str) -> None:
    call = call_of(reported(CONVENTIONS[name]))
    task = "llm" if name == "openinference" else "chat"
    provider = "OpenAI" if name == "openllmetry" else "openai"
    assert call == LlmCall(
        id=f"call_{TRACE}{SPAN}",
        model="gpt-4o-mini-2024-07-18",
        tokens_in=17,
        tokens_out=6,
        task=task,
        prompt_preview=QUESTION,
        response_preview=ANSWER,
        metadata=json.dumps(
            {"trace_id": TRACE, "span_id": SPAN, "provider": provider, "status": "ok"},
            separators=(",", ":"),
        ),
        called_at=BEGAN // 1000,
    )


@pytest.mark.parametrize("name", CONVENTIONS)
def test_its_span_keeps_the_conversation_once_and_the_rest_as_attributes(name: str) -> None:
    span = span_of(reported(CONVENTIONS[name]))
    assert (span.id, span.kind, span.status) == (f"span_{TRACE}{SPAN}", "llm", "ok")
    assert (span.duration_ms, span.started_at) == (1500, BEGAN // 1000)
    asked = json.loads(span.input_data)["messages"]
    assert [message["role"] for message in asked] == ["system", "user"]
    assert SYSTEM in json.dumps(asked[0])
    assert ANSWER in span.output_data
    attributes = json.loads(span.attributes)
    assert QUESTION not in span.attributes
    assert ANSWER not in span.attributes
    assert attributes["otel.trace_id"] == TRACE
    assert attributes["otel.span_id"] == SPAN
    assert attributes["otel.parent_span_id"] == PARENT
    assert attributes["otel.scope.name"] == "my.instrumentation"
    assert attributes["service.name"] == "shop"


KINDS = [
    ({"gen_ai.operation.name": "execute_tool"}, "tool"),
    ({"gen_ai.operation.name": "invoke_agent"}, "agent"),
    ({"gen_ai.operation.name": "invoke_workflow"}, "chain"),
    ({"gen_ai.operation.name": "retrieval"}, "retriever"),
    ({"gen_ai.operation.name": "embeddings"}, "embedding"),
    ({"gen_ai.operation.name": "text_completion"}, "llm"),
    ({"gen_ai.operation.name": "generate_content"}, "llm"),
    ({"openinference.span.kind": "RETRIEVER"}, "retriever"),
    ({"openinference.span.kind": "GUARDRAIL"}, "guardrail"),
    ({"openinference.span.kind": "EMBEDDING"}, "embedding"),
    ({"openinference.span.kind": "UNKNOWN"}, "client"),
    ({"traceloop.span.kind": "workflow"}, "chain"),
    ({"traceloop.span.kind": "agent"}, "agent"),
    ({"traceloop.span.kind": "tool"}, "tool"),
    ({"llm.request.type": "completion"}, "llm"),
    ({"llm.request.type": "rerank"}, "reranker"),
    ({"http.request.method": "GET"}, "client"),
    ({"gen_ai.operation.name": ["chat"]}, "client"),
]


@pytest.mark.parametrize(("attributes", "kind"), KINDS)
def test_a_span_is_of_the_kind_that_its_convention_says(
    attributes: dict[str, Any], kind: str
) -> None:
    calls = [
        event for event in events_of(reported(attributes)) if isinstance(event, LlmCallsRecorded)
    ]
    assert span_of(reported(attributes)).kind == kind
    assert bool(calls) == (kind in ("llm", "embedding"))


@pytest.mark.parametrize(("number", "kind"), [(0, "span"), (2, "server"), (99, "span")])
def test_what_no_convention_names_is_of_opentelemetry_s_kind(number: int, kind: str) -> None:
    assert span_of(reported(kind=number)).kind == kind


def test_a_root_begins_and_ends_its_run() -> None:
    root = reported(
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "shipping",
            "gen_ai.agent.id": "asst_1",
            "gen_ai.conversation.id": "conv_1",
            "user.id": "ada",
            "input.value": '{"order": 1142}',
            "output.value": "on Monday",
        },
        parent_id="",
        name="invoke_agent shipping",
    )
    started, spans, completed = events_of(root)
    assert started == RunStarted(
        agent_name="shipping",
        workflow_name="invoke_agent shipping",
        workflow_id=f"wf_{TRACE}",
        started_at=BEGAN // 1000,
        inputs='{"order":1142}',
        metadata='{"resource":{"service.name":"shop"},"scope":"my.instrumentation"}',
        trace_id=TRACE,
        agent_id="asst_1",
        user_id="ada",
        session_id="conv_1",
    )
    assert isinstance(spans, SpansRecorded)
    assert completed == RunCompleted(
        status="success",
        completed_at=BEGAN // 1000 + 1_500_000,
        result='{"value":"on Monday"}',
        began_at=BEGAN // 1000,
    )


NAMES: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ({}, {"service.name": "shop"}, {"agent_name": "shop", "workflow_name": "main"}),
    ({}, {"service.name": "unknown_service:python"}, {"agent_name": "main"}),
    ({"agent.name": "a"}, {"service.name": "shop"}, {"agent_name": "a"}),
    ({"traceloop.workflow.name": "refunds"}, {}, {"workflow_name": "refunds"}),
    ({"gen_ai.workflow.name": "refunds"}, {}, {"workflow_name": "refunds"}),
    ({"session.id": 7}, {}, {"session_id": "7"}),
    ({"traceloop.association.properties.session_id": "s"}, {}, {"session_id": "s"}),
    ({"traceloop.association.properties.user_id": "u"}, {}, {"user_id": "u"}),
    ({"enduser.id": "u"}, {}, {"user_id": "u"}),
    ({"agent.name": "x" * 600}, {}, {"agent_name": "x" * 500}),
]


@pytest.mark.parametrize(("attributes", "resource", "names"), NAMES)
def test_a_run_is_named_by_its_root(
    attributes: dict[str, Any], resource: dict[str, Any], names: dict[str, str]
) -> None:
    root = reported(attributes, parent_id="", name="main", origin=Origin(resource, ""))
    started = events_of(root)[0]
    assert {name: getattr(started, name) for name in names} == names


def test_a_failed_root_is_a_failed_run_with_its_reason() -> None:
    happened = Happening("exception", BEGAN, {"exception.message": "no such order"})
    for changes, reason in (
        ({"message": "refused"}, "refused"),
        ({"events": [happened]}, "no such order"),
        ({"attributes": {"error.type": "timeout"}}, "timeout"),
        ({}, ""),
    ):
        completed = events_of(reported(parent_id="", status=2, **changes))[-1]
        assert isinstance(completed, RunCompleted)
        assert (completed.status, completed.error) == ("error", reason)


def test_without_its_root_a_trace_has_spans_and_calls_and_no_start() -> None:
    kinds = [type(event) for event in events_of(reported(GEN_AI))]
    assert kinds == [LlmCallsRecorded, SpansRecorded]


def test_spans_of_one_trace_are_one_record_of_each_kind() -> None:
    root = reported(parent_id="", span_id="01" * 8)
    found = events_of(reported(GEN_AI), reported(GEN_AI, span_id="02" * 8), root)
    assert [type(event) for event in found] == [
        RunStarted,
        LlmCallsRecorded,
        SpansRecorded,
        RunCompleted,
    ]
    assert isinstance(found[2], SpansRecorded)
    assert len(found[2].spans) == 3


def test_the_same_span_is_the_same_whenever_it_comes() -> None:
    again = events_of(reported(GEN_AI))
    assert events_of(reported(GEN_AI)) == again


MESSAGES: list[tuple[str, ReportedSpan]] = [
    (
        "an event that holds all of it",
        reported(
            {"gen_ai.operation.name": "chat"},
            events=[
                Happening(
                    "gen_ai.client.inference.operation.details",
                    BEGAN,
                    {name: GEN_AI[name] for name in GEN_AI if name.endswith(".messages")},
                )
            ],
        ),
    ),
    (
        "an event for each message",
        reported(
            {"gen_ai.operation.name": "chat"},
            events=[
                Happening("gen_ai.system.message", BEGAN, {"content": SYSTEM}),
                Happening("gen_ai.user.message", BEGAN, {"content": QUESTION}),
                Happening("gen_ai.choice", BEGAN, {"message": json.dumps({"content": ANSWER})}),
            ],
        ),
    ),
    (
        "an event for all questions and one for all answers",
        reported(
            {"gen_ai.operation.name": "chat"},
            events=[
                Happening(
                    "gen_ai.content.prompt",
                    BEGAN,
                    {"gen_ai.prompt": json.dumps([{"role": "user", "content": QUESTION}])},
                ),
                Happening(
                    "gen_ai.content.completion",
                    BEGAN,
                    {"gen_ai.completion": json.dumps([{"role": "assistant", "content": ANSWER}])},
                ),
            ],
        ),
    ),
    (
        "structured attributes",
        reported(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.input.messages": [{"role": "user", "content": QUESTION}],
                "gen_ai.output.messages": [{"role": "assistant", "content": ANSWER}],
            }
        ),
    ),
    (
        "contents of several parts",
        reported(
            {
                "openinference.span.kind": "LLM",
                "llm.input_messages.0.message.role": "user",
                "llm.input_messages.0.message.contents.0.message_content.type": "text",
                "llm.input_messages.0.message.contents.0.message_content.text": QUESTION,
                "llm.output_messages.0.message.content": ANSWER,
            }
        ),
    ),
    (
        "nothing but values",
        reported(
            {"openinference.span.kind": "LLM", "input.value": QUESTION, "output.value": ANSWER}
        ),
    ),
]


@pytest.mark.parametrize("span", [span for _, span in MESSAGES], ids=[name for name, _ in MESSAGES])
def test_the_conversation_is_found_wherever_it_is_put(span: ReportedSpan) -> None:
    call = call_of(span)
    assert (call.prompt_preview, call.response_preview) == (QUESTION, ANSWER)
    made = span_of(span)
    assert QUESTION in made.input_data
    assert ANSWER in made.output_data
    assert ANSWER not in made.attributes


def test_a_call_of_a_tool_is_previewed_as_what_is_called_with_what() -> None:
    parts = [{"type": "tool_call", "name": "ship", "arguments": {"order": 1142}}]
    messages = json.dumps([{"role": "assistant", "parts": parts}])
    call = call_of(reported({**GEN_AI, "gen_ai.output.messages": messages}))
    assert call.response_preview == 'ship\n{"order":1142}'


def test_a_tool_keeps_its_arguments_and_its_result() -> None:
    span = span_of(
        reported(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "ship",
                "gen_ai.tool.call.arguments": '{"order": 1142}',
                "gen_ai.tool.call.result": [1, 2],
            }
        )
    )
    assert (span.input_data, span.output_data) == ('{"order":1142}', '{"value":[1,2]}')
    assert json.loads(span.attributes)["gen_ai.tool.name"] == "ship"


def test_a_retriever_keeps_its_question_and_its_documents_in_order() -> None:
    documents = {
        f"retrieval.documents.{index}.document.{field}": value
        for index, text in ((10, "last"), (2, "first"))
        for field, value in (("content", text), ("score", index / 10))
    }
    span = span_of(
        reported({"openinference.span.kind": "RETRIEVER", "input.value": "order?", **documents})
    )
    assert json.loads(span.input_data) == {"value": "order?"}
    assert json.loads(span.output_data) == {
        "documents": [{"content": "first", "score": 0.2}, {"content": "last", "score": 1.0}]
    }


def test_a_document_within_text_is_read_only_where_it_can_be_kept() -> None:
    deep = "[" * 100 + "]" * 100
    nul = json.dumps([{"role": "user", "content": "a\0b"}])
    for text, kept in (
        (nul, {"messages": [{"role": "user", "content": "a\ufffdb"}]}),
        (deep, {"messages": deep}),
        ("[1, ", {"messages": "[1, "}),
        ("[" + "9" * 30 + "]", {"messages": [int("9" * 30)]}),
    ):
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": text}
        assert json.loads(span_of(reported(attributes)).input_data) == kept
        assert "\0" not in call_of(reported(attributes)).prompt_preview


NUMBERS = [
    ("gen_ai.usage.input_tokens", "tokens_in", 3.0, 3),
    ("gen_ai.usage.input_tokens", "tokens_in", "12", 12),
    ("llm.usage.completion_tokens", "tokens_out", 5, 5),
    ("gen_ai.usage.input_tokens", "tokens_in", -1, 0),
    ("gen_ai.usage.input_tokens", "tokens_in", "many", 0),
    ("gen_ai.usage.input_tokens", "tokens_in", True, 0),
    ("gen_ai.usage.input_tokens", "tokens_in", 10**30, 0),
    ("gen_ai.usage.input_tokens", "tokens_in", float("nan"), 0),
    ("gen_ai.usage.cost", "cost", 0.0125, 0.0125),
    ("llm.cost.total", "cost", "0.5", 0.5),
    ("llm.cost.total", "cost", 0, 0.0),
    ("llm.cost.total", "cost", -1, None),
    ("llm.cost.total", "cost", float("inf"), None),
]


@pytest.mark.parametrize(("name", "field", "value", "expected"), NUMBERS)
def test_numbers_that_are_none_are_as_good_as_absent(
    name: str, field: str, value: Any, expected: Any
) -> None:
    call = call_of(reported({"gen_ai.operation.name": "chat", name: value}))
    assert getattr(call, field) == expected
    assert call.model == "unknown"


def test_times_that_nobody_knows_are_those_of_the_report() -> None:
    for began, ended in ((0, 0), (2**64 - 1, 2**64 - 1)):
        events = events_of(reported(GEN_AI, parent_id="", started_at=began, ended_at=ended))
        started, calls, spans, completed = events
        assert isinstance(started, RunStarted)
        assert isinstance(calls, LlmCallsRecorded)
        assert isinstance(spans, SpansRecorded)
        assert isinstance(completed, RunCompleted)
        assert started.started_at == completed.completed_at == NOW
        assert calls.calls[0].called_at == spans.spans[0].started_at == 0


def test_an_end_before_the_start_is_taken_without_a_duration() -> None:
    span = span_of(reported(ended_at=BEGAN - 1))
    assert (span.duration_ms, span.started_at) == (None, BEGAN // 1000)


REFUSED = [
    ({"trace_id": ""}, "trace id"),
    ({"span_id": ""}, TRACE),
    ({"parent_id": None}, SPAN),
    ({"attributes": {"input.value": "x" * (ITEM_MAX + 1)}}, str(ITEM_MAX)),
    ({"attributes": {"anything": "ü" * (ITEM_MAX // 2 + 1)}}, str(ITEM_MAX)),
]


@pytest.mark.parametrize(("changes", "named"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_taken_is_told_and_leaves_nothing(
    changes: dict[str, Any], named: str
) -> None:
    runs: dict[str, Run] = {}
    with pytest.raises(Rejected, match=named):
        take(reported(**changes), runs, NOW)
    assert runs == {}


def test_the_largest_span_that_is_taken_fits_a_record_in_all_its_events() -> None:
    value = "x" * (ITEM_MAX - 1_000)
    origin = Origin({"service.name": "shop", "padding": "y" * 400_000}, "s" * 100)
    for name in ("input.value", "output.value", "anything"):
        attributes = {**GEN_AI, name: value}
        attributes.pop("gen_ai.input.messages")
        attributes.pop("gen_ai.output.messages")
        for event in events_of(reported(attributes, parent_id="", origin=origin)):
            assert len(codec().encode(event)) <= MAX_EVENT_BYTES


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
names = st.sampled_from(
    [
        *GEN_AI,
        *OPENLLMETRY,
        *OPENINFERENCE,
        "traceloop.span.kind",
        "llm.output_messages.1.message.tool_calls.0.tool_call.function.name",
        "gen_ai.prompt.999999.",
        "gen_ai.prompt.x",
        "session.id",
        "input.value",
        "gen_ai.agent.name",
        "gen_ai.usage.cost",
    ]
)


@given(st.dictionaries(names | st.text(max_size=10), plain), plain)
def test_whatever_attributes_hold_the_events_can_be_logged(
    attributes: dict[str, Any], value: Any
) -> None:
    happened = Happening("gen_ai.choice", BEGAN, {"message": value})
    llm = {**attributes, "openinference.span.kind": "LLM"}
    for span in (
        reported(attributes, parent_id="", events=[happened]),
        reported(llm, parent_id="", events=[happened]),
    ):
        for event in events_of(span):
            encoded = codec().encode(event)
            assert codec().decode(encoded) == event
            msgspec.convert(msgspec.to_builtins(event), type(event))
