"""The access log: one JSON object a line for each request. No secret reaches it.

The system rotates it: rename the file and send SIGHUP, and a new one is begun. Lines are gathered for two seconds,
so a kill loses that much; a log that cannot be written loses lines, which is counted, and stops nobody.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from qss.errors import Refused
from qss.host import Clock
from qss.s3.dates import iso
from qss.s3.exchange import Exchange
from qss.s3.rsgi import path_of
from qss.trove.shares import PATH

if TYPE_CHECKING:
    from qss.s3.rsgi import Scope

log = logging.getLogger(__name__)

LINES_MAX: Final = 256
"""Gathered before they are written without waiting for `flush`."""
TEXT_CHARS_MAX: Final = 2048
_HIDDEN: Final = "…"
_SECRET_QUERY: Final = frozenset(
    {"awsaccesskeyid", "signature", "token", "x-amz-credential", "x-amz-security-token", "x-amz-signature"}
)
_SECRET_WORDS: Final = ("secret", "password", "customer-key")


class AccessLog:
    """An open log file. Raises Refused when it cannot be opened."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lines: list[bytes] = []
        self._complained = False
        self.lost = 0  # lines
        self._handle = self._open()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"the access log {self._path} cannot be opened: {error.strerror}") from error

    def note(self, front: str, scope: Scope, exchange: Exchange) -> None:
        line = {
            "time": iso(self._clock.now_ns()),
            "front": front,
            "client": scope.client,
            "method": scope.method,
            "path": redacted_path(scope.raw_path),
            "query": redacted_query(scope.query_string),
            "status": exchange.status,
            "bytes_in": exchange.bytes_in,
            "bytes_out": exchange.bytes_out,
            "ms": round(exchange.seconds * 1000, 3),
            "operation": exchange.operation,
            "user": exchange.user,
            "request_id": exchange.request_id,
            "agent": (scope.headers.get("user-agent") or "")[:TEXT_CHARS_MAX],
        }
        self._lines.append(json.dumps(line).encode() + b"\n")
        if len(self._lines) >= LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        data = b"".join(lines)
        try:
            written = os.write(self._handle, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes were taken")
        except OSError as error:
            self.lost += len(lines)
            if not self._complained:
                log.error("the access log loses lines: %s", error)
            self._complained = True
        else:
            self._complained = False

    def reopen(self) -> None:
        """Go on in the file that has the name now; with the one that is open when there can be none."""
        self.flush()
        try:
            handle = self._open()
        except Refused as error:
            log.error("%s", error)
            return
        os.close(self._handle)
        self._handle = handle

    def close(self) -> None:
        self.flush()
        os.close(self._handle)


def redacted_path(raw: str) -> str:
    """A share's token is not written down, however its path is spelled (`raw`: as sent)."""
    is_share = raw.startswith(PATH) or path_of(raw).startswith(PATH)
    return f"{PATH}{_HIDDEN}" if is_share else raw[:TEXT_CHARS_MAX]


def redacted_query(query: str) -> str:
    """Without the values of parameters that let somebody in. Names stay."""
    if not query:
        return ""
    return "&".join(_redacted(piece) for piece in query[:TEXT_CHARS_MAX].split("&"))


def _redacted(piece: str) -> str:
    name, equals, _ = piece.partition("=")
    plain = unquote(name).lower()
    if not equals or not (plain in _SECRET_QUERY or any(word in plain for word in _SECRET_WORDS)):
        return piece
    return f"{name}={_HIDDEN}"
