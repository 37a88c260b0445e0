"""Values that fit a JSON Schema, the same each time: enough to get a request past its decoding."""

import re
from typing import Any

Json = dict[str, Any]

# Tried in order where a string has a pattern.
_STRINGS = (
    "x",
    "a-b",
    "abc",
    "0" * 64,
    "2025-01-02T03:04:05Z",
    "someone@weir.test",
    "1",
    "https://weir.test",
)


def example(schema: Json, document: Json) -> Any:
    """The smallest value that the schema takes: required fields only. Raises LookupError."""
    schema = resolve(schema, document)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return example(options[0], document)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {
                name: example(properties[name], document) for name in schema.get("required", [])
            }
        case "array":
            return [example(schema["items"], document)] * schema.get("minItems", 0)
        case "string":
            return _string(schema)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
    return {}


def resolve(schema: Json, document: Json) -> Json:
    """What a `$ref` stands for."""
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _string(schema: Json) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    for text in (*_STRINGS, "x" * least):
        if least <= len(text) <= most and re.search(schema.get("pattern", ""), text):
            return text
    raise LookupError(f"no example fits {schema}: add one to tests/api/examples.py")
