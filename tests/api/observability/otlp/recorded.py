"""Attributes as instrumentations send them, recorded from calls of a local server.

The same conversation each time, so that the same call has to come of each.
"""

import json
from typing import Any

Attributes = dict[str, Any]

SYSTEM, QUESTION, ANSWER = "Be brief.", "When does order 1142 ship?", "It ships on Monday."

# opentelemetry-instrumentation-openai (OpenLLMetry) 0.62: GenAI conventions of today.
GEN_AI: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.is_streaming": False,
    "gen_ai.input.messages": json.dumps(
        [
            {"role": "system", "parts": [{"content": SYSTEM, "type": "text"}]},
            {"role": "user", "parts": [{"content": QUESTION, "type": "text"}]},
        ]
    ),
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.total_tokens": 23,
    "gen_ai.usage.output_tokens": 6,
    "gen_ai.usage.input_tokens": 17,
    "gen_ai.output.messages": json.dumps(
        [
            {
                "role": "assistant",
                "parts": [{"content": ANSWER, "type": "text"}],
                "finish_reason": "stop",
            }
        ]
    ),
}

# OpenLLMetry before it followed those: an attribute for each part of each message.
OPENLLMETRY: Attributes = {
    "llm.request.type": "chat",
    "gen_ai.system": "OpenAI",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": SYSTEM,
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": QUESTION,
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": ANSWER,
    "gen_ai.completion.0.finish_reason": "stop",
    "llm.usage.total_tokens": 23,
    "gen_ai.usage.prompt_tokens": 17,
    "gen_ai.usage.completion_tokens": 6,
}

# openinference-instrumentation-openai 0.1.66.
OPENINFERENCE: Attributes = {
    "llm.system": "openai",
    "input.value": json.dumps({"model": "gpt-4o-mini", "messages": "as below"}),
    "input.mime_type": "application/json",
    "output.value": json.dumps({"id": "chatcmpl-1", "choices": "as below"}),
    "output.mime_type": "application/json",
    "llm.invocation_parameters": '{"model": "gpt-4o-mini"}',
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": SYSTEM,
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.content": QUESTION,
    "llm.model_name": "gpt-4o-mini-2024-07-18",
    "llm.token_count.total": 23,
    "llm.token_count.prompt": 17,
    "llm.token_count.completion": 6,
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": ANSWER,
    "llm.finish_reason": "stop",
    "openinference.span.kind": "LLM",
}
