"""aws-chunked: the body format of SigV4 streaming uploads, as a state machine without I/O.

    <hex size>[;chunk-signature=<64 hex>]\\r\\n <data> \\r\\n   … until size 0, then
    [<trailer-name>:<value>\\r\\n …] [x-amz-trailer-signature:<64 hex>\\r\\n] \\r\\n

Source: "Signature calculations for the Authorization header: transferring payload in multiple chunks", and the page
behind it, "… including trailing headers".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from qss.s3.backend import Chunk
from qss.s3.errors import Code, S3Error
from qss.s3.sigv4 import ChunkSigning

LINE_BYTES_MAX: Final = 1024
TRAILERS_BYTES_MAX: Final = 16 * 1024
CHUNK_BYTES_MAX: Final = 5 * 1024**3  # the whole of a single put
_SIGNATURE: Final = "chunk-signature="
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"


class _State(Enum):
    HEAD = auto()  # a chunk's first line
    DATA = auto()
    DATA_END = auto()  # the CRLF behind the data
    TRAILERS = auto()
    END = auto()


@dataclass(slots=True)
class ChunkedDecoder:
    """Feed pieces in order, take the data out; `finish` at the end. Raises S3Error for whatever does not hold."""

    signing: ChunkSigning | None  # None: chunks are not signed
    trailers_announced: bool
    trailers: dict[str, str] = field(default_factory=dict)
    _state: _State = _State.HEAD
    _pending: bytearray = field(default_factory=bytearray)
    _left: int = 0  # bytes of data to come in this chunk
    _last: bool = False  # this chunk is the one of size 0
    _signature: str = ""  # claimed by this chunk
    _previous: str = ""
    _hash: hashlib._Hash | None = None
    _trailer_text: bytes = b""
    _trailer_bytes: int = 0

    def __post_init__(self) -> None:
        self._previous = "" if self.signing is None else self.signing.seed

    def feed(self, data: Chunk) -> list[memoryview]:
        """Views into `data` that are payload. A chunk's signature is checked when its last byte has come."""
        view = memoryview(data)
        found: list[memoryview] = []
        while view:
            if self._state is _State.DATA:
                piece, view = view[: self._left], view[self._left :]
                self._take(piece)
                found.append(piece)
            elif self._state is _State.END:
                raise S3Error(Code.INCOMPLETE_BODY, "There are bytes behind the last chunk.")
            else:
                view = self._line(view)
        return found

    def finish(self) -> None:
        """Call when the input has ended."""
        if self._state is not _State.END:
            raise S3Error(Code.INCOMPLETE_BODY)

    def _take(self, piece: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(piece)
        self._left -= len(piece)
        if not self._left:
            self._check_signature()
            self._state = _State.DATA_END

    def _line(self, view: memoryview) -> memoryview:
        """Collect up to the next CRLF and act on the line; returns the rest."""
        at = bytes(view[:LINE_BYTES_MAX]).find(b"\n")
        cut = len(view) if at < 0 else at + 1
        self._pending += view[:cut]
        if len(self._pending) > LINE_BYTES_MAX:
            raise self._malformed()
        if at >= 0:
            line = bytes(self._pending)
            self._pending.clear()
            if not line.endswith(b"\r\n"):
                raise self._malformed()
            self._act(line[:-2])
        elif self._state is _State.DATA_END and not b"\r\n".startswith(self._pending):
            raise self._malformed()
        return view[cut:]

    def _malformed(self) -> S3Error:
        return S3Error(Code.MALFORMED_TRAILER if self._state is _State.TRAILERS else Code.INCOMPLETE_BODY)

    def _act(self, line: bytes) -> None:
        if self._state is _State.HEAD:
            self._head(line)
        elif self._state is _State.DATA_END:
            if line:
                raise self._malformed()
            self._state = _State.HEAD
        else:
            self._trailer(line)

    def _head(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        if not size or len(size) > 16 or not all(byte in b"0123456789abcdefABCDEF" for byte in size):
            raise self._malformed()
        self._left = int(size, 16)
        if self._left > CHUNK_BYTES_MAX:
            raise S3Error(Code.ENTITY_TOO_LARGE)
        if self.signing is not None:
            text = extension.decode("ascii", "replace").strip()
            if not text.startswith(_SIGNATURE):
                raise self._malformed()
            self._signature = text[len(_SIGNATURE) :]
            self._hash = hashlib.sha256()
        if self._left:
            self._state = _State.DATA
            return
        self._check_signature()
        self._state = _State.TRAILERS

    def _check_signature(self) -> None:
        if self.signing is None or self._hash is None:
            return
        expected = self.signing.chunk(self._previous, self._hash.hexdigest())
        if not hmac.compare_digest(expected.encode(), self._signature.encode()):
            raise S3Error(Code.SIGNATURE_MISMATCH)
        self._previous = expected

    def _trailer(self, line: bytes) -> None:
        """Trailers end with an empty line; some clients leave that line's CRLF as the only thing behind chunk 0."""
        if not line:
            self._end()
            return
        self._trailer_bytes += len(line)
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        name = name.strip().lower()
        if (
            not self.trailers_announced
            or not colon
            or name in self.trailers
            or self._trailer_bytes > TRAILERS_BYTES_MAX
        ):
            raise self._malformed()
        self.trailers[name] = value.strip()
        if name != _TRAILER_SIGNATURE:
            self._trailer_text += f"{name}:{value.strip()}\n".encode()

    def _end(self) -> None:
        claimed = self.trailers.pop(_TRAILER_SIGNATURE, None)
        if self.signing is not None and self.trailers_announced:
            expected = self.signing.trailer(self._previous, self._trailer_text)
            if not hmac.compare_digest(expected.encode(), (claimed or "").encode()):
                raise S3Error(Code.SIGNATURE_MISMATCH)
        self._state = _State.END
