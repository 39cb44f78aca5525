"""Routes of a JSON API as data: matched here, checked here, described by qss.trove.openapi. No I/O.

A route says what it takes and gives as JSON Schema, in the part of it that `check` knows; so what the description
promises and what is enforced are one text.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qss.errors import CorruptData
from qss.s3 import strict_json
from qss.s3.errors import Code, S3Error

Schema = Mapping[str, Any]

JSON: Final = "application/json"
ANY_OBJECT: Final[Schema] = {"type": "object"}
DONE: Final[Schema] = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has passed its route's checks."""

    args: Mapping[str, str] = field(default_factory=dict)  # from the path
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    kind: str = JSON


def answer(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def done() -> Answer:
    """As DONE says."""
    return answer({"done": True})


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `{name}` in the path takes one segment."""

    method: str
    path: str
    summary: str
    handler: Callable[[Asked], Awaitable[Answer]]
    takes: Schema | None = None  # of the body; None: no body
    gives: Schema = field(default_factory=lambda: ANY_OBJECT)
    query: Mapping[str, str] = field(default_factory=dict)  # name: what it says
    status: int = 200
    errors: tuple[int, ...] = ()  # what it answers besides 400, 401 and 500
    kind: str = JSON
    public: bool = False  # needs no token

    @property
    def names(self) -> list[str]:
        return [piece[1:-1] for piece in self.path.split("/") if piece.startswith("{")]

    def match(self, path: str) -> dict[str, str] | None:
        """The path's arguments, or None for another path."""
        ours, theirs = self.path.split("/"), path.split("/")
        if len(ours) != len(theirs):
            return None
        found: dict[str, str] = {}
        for mine, given in zip(ours, theirs, strict=True):
            if mine.startswith("{") and given:
                found[mine[1:-1]] = given
            elif mine != given:
                return None
        return found


def find(routes: Sequence[Route], method: str, path: str) -> tuple[Route, dict[str, str]] | int:
    """The route and its arguments; 404 or 405 where there is none. Words in a path go before `{names}`."""
    status = 404
    best: tuple[Route, dict[str, str]] | None = None
    for route in routes:
        arguments = route.match(path)
        if arguments is None:
            continue
        if route.method != method:
            status = 405
        elif best is None or len(arguments) < len(best[1]):
            best = route, arguments
    return best or status


def read_body(route: Route, body: bytes) -> dict[str, Any]:
    """The JSON object in a body, checked against the route; {} for none. Raises S3Error INVALID_REQUEST."""
    value = json_object(body)
    if route.takes is None:
        if value:
            raise S3Error(Code.INVALID_REQUEST, "this takes no body")
        return value
    check(route.takes, value, "the body")
    return value


def json_object(body: bytes) -> dict[str, Any]:
    """{} for no body. Raises S3Error INVALID_REQUEST."""
    try:
        value = strict_json.load(body) if body else {}
    except CorruptData:
        raise S3Error(Code.INVALID_REQUEST, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise S3Error(Code.INVALID_REQUEST, "the body is not a JSON object")
    return value


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def check(schema: Schema, value: Any, where: str) -> None:
    """Raise S3Error INVALID_REQUEST, in words, unless `value` fits. Knows type, enum, properties, required,
    additionalProperties (false), items, minimum, maximum, minLength, maxLength, maxItems."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    fits = any(isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool) for kind in kinds)
    if kinds and not fits:
        raise S3Error(Code.INVALID_REQUEST, f"{where} is not of type {' or '.join(kinds)}")
    if "enum" in schema and value not in schema["enum"]:
        raise S3Error(Code.INVALID_REQUEST, f"{where} is none of {', '.join(map(str, schema['enum']))}")
    if isinstance(value, dict):
        _check_object(schema, value, where)
    elif isinstance(value, list):
        _check_size(len(value), 0, schema.get("maxItems"), where)
        for number, each in enumerate(value):
            check(schema.get("items", {}), each, f"{where}[{number}]")
    elif isinstance(value, str):
        _check_size(len(value), schema.get("minLength", 0), schema.get("maxLength"), where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_size(value, schema.get("minimum"), schema.get("maximum"), where)


def _check_object(schema: Schema, value: Mapping[str, Any], where: str) -> None:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise S3Error(Code.INVALID_REQUEST, f'{where} has no "{name}"')
    for name, each in value.items():
        if name in properties:
            check(properties[name], each, f'"{name}"')
        elif schema.get("additionalProperties", True) is False:
            raise S3Error(Code.INVALID_REQUEST, f'there is no "{name[:64]}"; there are: {", ".join(properties)}')


def _check_size(size: float, least: float | None, most: float | None, where: str) -> None:
    if least is not None and size < least:
        raise S3Error(Code.INVALID_REQUEST, f"{where} is below {least}")
    if most is not None and size > most:
        raise S3Error(Code.INVALID_REQUEST, f"{where} is above {most}")


def body_of(properties: Mapping[str, Schema], *required: str) -> Schema:
    """The schema of a body with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
