"""JSON-RPC 2.0, one message a line: bytes ↔ values, no I/O. Format: https://www.jsonrpc.org/specification.

We use named parameters only, integer ids, no batches, and one notification of our own, `progress`, which a server
sends while a call is running: `{"method": "progress", "params": {"call": id, "value": {...}}}`.
Errors carry the class of the QssError in `data.class`, so that the other side can raise the same one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from qss import errors
from qss.errors import CorruptData, FsError, QssError, Retryable
from qss.limits import MIB

LINE_BYTES_MAX: Final = 16 * MIB
"""Longest message. A list of 100,000 segments fits; bulk bytes never travel here."""

Json = Any
"""What `json` makes: None, bool, int, float, str, list or dict of the same."""

NOT_A_MESSAGE: Final = -32700
NOT_A_REQUEST: Final = -32600
NO_SUCH_METHOD: Final = -32601
BAD_PARAMS: Final = -32602
INTERNAL: Final = -32603
QSS_ERROR: Final = -32000  # data.class says which


@dataclass(frozen=True, slots=True)
class Request:
    id: int
    method: str
    params: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    id: int
    result: Json


@dataclass(frozen=True, slots=True)
class Failure:
    id: int | None  # None: the request could not be read
    code: int
    message: str
    data: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    call: int
    value: dict[str, Json]


Message = Request | Reply | Failure | Progress


class RemoteBug(QssError):
    """The other side failed in a way it should not have; its log says more."""


def encode(message: Message) -> bytes:
    """One line, newline included."""
    body: dict[str, Json] = {"jsonrpc": "2.0"}
    match message:
        case Request(number, method, params):
            body |= {"id": number, "method": method, "params": params}
        case Reply(number, result):
            body |= {"id": number, "result": result}
        case Failure(failed, code, text, data):
            body |= {"id": failed, "error": {"code": code, "message": text, "data": data}}
        case Progress(call, value):
            body |= {"method": "progress", "params": {"call": call, "value": value}}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def decode(untrusted: bytes) -> Message:
    """The message of one line (with or without its newline). Raises CorruptData, never anything else."""
    try:
        body = json.loads(untrusted.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptData("a control message is not JSON") from error
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        raise CorruptData("a control message is not JSON-RPC 2.0")
    if "method" in body:
        return _decode_request(body)
    number = body.get("id")
    if "error" in body:
        return _decode_failure(number, body["error"])
    if not _is_id(number) or "result" not in body:
        raise CorruptData("a control message is neither request nor reply")
    return Reply(number, body["result"])


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _decode_request(body: dict[str, Json]) -> Request | Progress:
    method, params = body["method"], body.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        raise CorruptData("a control request needs a method and named parameters")
    if "id" in body:
        if not _is_id(body["id"]):
            raise CorruptData("a control request's id is not a number")
        return Request(body["id"], method, params)
    call, value = params.get("call"), params.get("value")
    if method != "progress" or not isinstance(call, int) or isinstance(call, bool) or not isinstance(value, dict):
        raise CorruptData("an unknown control notification")
    return Progress(call, value)


def _decode_failure(number: Json, error: Json) -> Failure:
    if not isinstance(error, dict) or not (number is None or _is_id(number)):
        raise CorruptData("a control error does not hold")
    code, text, data = error.get("code"), error.get("message"), error.get("data", {})
    if not _is_id(code) or not isinstance(text, str) or not isinstance(data, dict):
        raise CorruptData("a control error does not hold")
    return Failure(number, code, text, data)


_CLASSES: Final[dict[str, type[QssError]]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, QssError) and not issubclass(value, FsError)
}


def failure_of(number: int, error: QssError) -> Failure:
    """What a server answers for an error raised on purpose."""
    data: dict[str, Json] = {"class": next(c.__name__ for c in type(error).__mro__ if c.__name__ in _CLASSES)}
    if isinstance(error, FsError):
        data |= {"class": "FsError", "errno": error.errno}
    if isinstance(error, Retryable) and error.retry_after_s is not None:
        data |= {"retry_after_s": error.retry_after_s}
    return Failure(number, QSS_ERROR, str(error), data)


def error_of(failure: Failure) -> QssError:
    """What a client raises for it: the same class, as far as it is known here."""
    name = failure.data.get("class")
    number = failure.data.get("errno")
    if failure.code == QSS_ERROR and name == "FsError" and _is_id(number):
        error = FsError(number)
        error.args = (failure.message,)
        return error
    found = _CLASSES.get(name) if failure.code == QSS_ERROR and isinstance(name, str) else None
    if found is None or found is QssError:
        return RemoteBug(failure.message)
    if issubclass(found, Retryable):
        after = failure.data.get("retry_after_s")
        return found(failure.message, retry_after_s=after if isinstance(after, int | float) else None)
    return found(failure.message)


class LineSplitter:
    """Bytes in, whole lines out. Holds at most one unfinished line."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._rest = bytearray()
        self._line_bytes_max = line_bytes_max

    def feed(self, data: bytes) -> list[bytes]:
        """Lines completed by `data`, without newlines. Raises CorruptData when one is longer than allowed."""
        seen = len(self._rest)
        self._rest += data
        end = self._rest.rfind(b"\n", seen)
        lines: list[bytes] = []
        if end >= 0:
            lines = bytes(self._rest[:end]).split(b"\n")
            del self._rest[: end + 1]
        if len(self._rest) > self._line_bytes_max or any(len(line) > self._line_bytes_max for line in lines):
            raise CorruptData("a control message is too long")
        return lines
