"""Avro schemas derived from msgspec structs: one definition, no drift.

Mapping (Avro 1.11 specification, "Schema Declaration"): str -> string, int -> long,
float -> double, bool -> boolean, bytes -> bytes, list -> array, dict[str, V] -> map,
Struct -> record, X | None -> ["null", X] with default null, Literal of strings -> string.
Arbitrary JSON rides as a string (`schemas.types.Json`). Any other type is refused here, at
generation time, and never at run time.
"""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

AvroSchema = dict[str, Any]
_PRIMITIVES: dict[Any, str] = {
    str: "string",
    int: "long",
    float: "double",
    bool: "boolean",
    bytes: "bytes",
}


def tag_of(struct: type[Struct]) -> str:
    """The wire name of an event or command: `domain.name.vN`. Raises TypeError without a tag."""
    tag = struct.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{struct.__name__} needs a string tag such as 'billing.usage_recorded.v1'")
    return tag


def derive(struct: type[Struct]) -> AvroSchema:
    """The Avro record schema of a tagged struct; its full name is `weir.<tag with dots>`."""
    domain, name, version = tag_of(struct).split(".")
    return _record(struct, f"{name}_{version}", f"weir.{domain}", seen=set())


def _record(struct: type[Struct], name: str, namespace: str, seen: set[str]) -> AvroSchema:
    schema: AvroSchema = {"type": "record", "name": name}
    if namespace:
        schema["namespace"] = namespace
    doc = (struct.__doc__ or "").strip().split("\n")[0]
    if doc and not doc.startswith(struct.__name__ + "("):
        schema["doc"] = doc
    schema["fields"] = [_field(struct, field, name, seen) for field in _fields(struct)]
    return schema


def _fields(struct: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(struct)


def _field(
    struct: type[Struct], field: msgspec.structs.FieldInfo, path: str, seen: set[str]
) -> AvroSchema:
    out: AvroSchema = {
        "name": field.encode_name,
        "type": _type(field.type, f"{path}_{field.name}", seen),
    }
    default = _default(field)
    if default is not NODEFAULT:
        out["default"] = default
    return out


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not NODEFAULT:
        return msgspec.to_builtins(field.default)
    if field.default_factory is not NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return NODEFAULT


def _type(annotation: Any, path: str, seen: set[str]) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0], path, seen)
    if annotation in _PRIMITIVES:
        return _PRIMITIVES[annotation]
    if origin is Literal and all(isinstance(value, str) for value in get_args(annotation)):
        return "string"
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return ["null", _type(members[0], path, seen)]
    if origin in (list, tuple):
        return {"type": "array", "items": _type(get_args(annotation)[0], path, seen)}
    if origin is dict and get_args(annotation)[0] is str:
        return {"type": "map", "values": _type(get_args(annotation)[1], path, seen)}
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        if annotation.__name__ in seen:
            return annotation.__name__
        seen.add(annotation.__name__)
        return _record(annotation, annotation.__name__, "", seen)
    raise TypeError(f"{path}: {annotation!r} has no Avro form here")
