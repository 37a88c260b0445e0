"""Which attribute means what, in OpenTelemetry's GenAI conventions (of today and of before),
OpenInference and OpenLLMetry. In each list the first attribute that a span has counts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from api.observability.otlp.reported import Attributes

# What a span is: the attribute, and the kind that each of its values (in lower case) stands for.
OPERATION = "gen_ai.operation.name"
KINDS: Sequence[tuple[str, Mapping[str, str]]] = (
    (
        OPERATION,
        {
            "chat": "llm",
            "text_completion": "llm",
            "generate_content": "llm",
            "embeddings": "embedding",
            "execute_tool": "tool",
            "retrieval": "retriever",
            "create_agent": "agent",
            "invoke_agent": "agent",
            "invoke_workflow": "chain",
            "plan": "reasoning",
        },
    ),
    (
        "openinference.span.kind",
        {
            "llm": "llm",
            "embedding": "embedding",
            "tool": "tool",
            "retriever": "retriever",
            "reranker": "reranker",
            "agent": "agent",
            "chain": "chain",
            "guardrail": "guardrail",
            "evaluator": "evaluator",
            "prompt": "prompt",
        },
    ),
    (
        "llm.request.type",
        {"chat": "llm", "completion": "llm", "embedding": "embedding", "rerank": "reranker"},
    ),
    (
        "traceloop.span.kind",
        {"workflow": "chain", "task": "chain", "agent": "agent", "tool": "tool"},
    ),
)
# What is none of these is called as OpenTelemetry numbers it.
SPAN_KINDS = ("span", "internal", "server", "client", "producer", "consumer")
LLM_CALLS = frozenset({"llm", "embedding"})

MODEL = (
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.response.model_name",
    "llm.model_name",
    "llm.request.model_name",
    "embedding.model_name",
)
PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
TOKENS_IN = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
)
TOKENS_OUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
COST = ("gen_ai.usage.cost", "llm.cost.total")
TASK = (OPERATION, "llm.request.type")

AGENT_NAME = ("gen_ai.agent.name", "agent.name")
AGENT_ID = ("gen_ai.agent.id",)
WORKFLOW_NAME = ("gen_ai.workflow.name", "traceloop.workflow.name")
SESSION_ID = (
    "session.id",
    "gen_ai.conversation.id",
    "traceloop.association.properties.session_id",
)
USER_ID = ("user.id", "enduser.id", "traceloop.association.properties.user_id")
SERVICE_NAME = "service.name"

# Messages, as one document: of the span, or of the event in which some instrumentations put them.
INPUT_MESSAGES = ("gen_ai.input.messages",)
OUTPUT_MESSAGES = ("gen_ai.output.messages",)
INSTRUCTIONS = ("gen_ai.system_instructions",)
DETAILS_EVENT = "gen_ai.client.inference.operation.details"
# A list, an attribute for each part of each of its items (`<prefix>.N.<field>`), and its name.
INPUT_PREFIXES: Mapping[str, str] = {
    "gen_ai.prompt": "messages",
    "llm.input_messages": "messages",
    "llm.prompts": "messages",
    "embedding.embeddings": "embeddings",
    "reranker.input_documents": "documents",
}
OUTPUT_PREFIXES: Mapping[str, str] = {
    "gen_ai.completion": "messages",
    "llm.output_messages": "messages",
    "llm.choices": "messages",
    "retrieval.documents": "documents",
    "reranker.output_documents": "documents",
}
# Messages, an event for each (conventions before 1.37), or one for all of them (before 1.28).
INPUT_EVENTS: Mapping[str, str] = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
OUTPUT_EVENT = "gen_ai.choice"
WHOLE_INPUT_EVENT = ("gen_ai.content.prompt", "gen_ai.prompt")
WHOLE_OUTPUT_EVENT = ("gen_ai.content.completion", "gen_ai.completion")
# What went in and came out of anything else.
INPUT = (
    "input.value",
    "traceloop.entity.input",
    "gen_ai.tool.call.arguments",
    "tool.parameters",
    "gen_ai.prompt",
    "gen_ai.retrieval.query.text",
    "reranker.query",
)
OUTPUT = (
    "output.value",
    "traceloop.entity.output",
    "gen_ai.tool.call.result",
    "gen_ai.completion",
    "gen_ai.retrieval.documents",
)
# Kept as `input_data` and `output_data`, hence not a second time among the attributes.
CONTENTS = frozenset(
    {*INPUT_MESSAGES, *OUTPUT_MESSAGES, *INSTRUCTIONS, *INPUT, *OUTPUT}
    | {"input.mime_type", "output.mime_type"}
)
CONTENT_PART = re.compile(
    rf"(?:{'|'.join(map(re.escape, (*INPUT_PREFIXES, *OUTPUT_PREFIXES)))})\.\d"
)

EXCEPTION_EVENT, EXCEPTION_MESSAGE = "exception", ("exception.message", "exception.type")
ERROR = 2  # the number of a span's status


def first(attributes: Attributes, names: Sequence[str]) -> Any:
    """The value of the first of these attributes that says anything, else None."""
    for name in names:
        found = attributes.get(name)
        if found is not None and found != "":
            return found
    return None


def kind_of(attributes: Attributes, number: int) -> str:
    """What a span is: a kind of the conventions', or of OpenTelemetry's by its number."""
    for name, kinds in KINDS:
        value = attributes.get(name)
        if isinstance(value, str) and value.lower() in kinds:
            return kinds[value.lower()]
    return SPAN_KINDS[number] if 0 <= number < len(SPAN_KINDS) else SPAN_KINDS[0]
