"""multipart/form-data as browsers send it to a bucket: small fields, then one file that is streamed.

Source: RFC 7578, RFC 2046 section 5.1, "Browser-based uploads using POST" of the Amazon S3 API reference. Fields
behind the file are not looked at. Loop-neutral; bounded: the fields by FIELDS_BYTES_MAX, the file by nothing but its
reader, since no more than one chunk of it is held.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from qss.s3.backend import Chunk
from qss.s3.errors import Code, S3Error

FIELDS_BYTES_MAX: Final = 64 * 1024  # everything before the file; AWS stops at 20 KB
# RFC 2046: a boundary has at most 70 characters.
_BOUNDARY: Final = re.compile(r'(?:^|;)\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))\s*(?:;|$)', re.IGNORECASE)
_PARAMETER: Final = re.compile(r';\s*(name|filename)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes:
    """Raises S3Error unless it is multipart/form-data with a boundary."""
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise S3Error(Code.PRECONDITION_FAILED, "Bucket POST must be of the enclosure-type multipart/form-data")
    found = _BOUNDARY.search(parameters)
    if found is None:
        raise S3Error(Code.MALFORMED_POST)
    return (found[1] or found[2]).encode()


@dataclass(frozen=True, slots=True)
class FileHead:
    """What is known of the file before its bytes."""

    name: str  # without directories; "" if the browser told none
    content_type: str | None
    at: int  # bytes of the body before its content


class FormReader:
    """Takes a body apart: `fields`, then `content`. Each is to be used once, in this order."""

    def __init__(self, raw: AsyncIterator[Chunk], boundary: bytes) -> None:
        self._raw = raw
        self._delimiter = b"\r\n--" + boundary
        # A CRLF in front, so that the first delimiter looks like the others.
        self._buffer = bytearray(b"\r\n")
        self._taken = -2  # bytes of the body taken out of the buffer
        self._ended = False

    @property
    def tail_bytes(self) -> int:
        """Length of what ends a form whose last part is the file."""
        return len(self._delimiter) + len(b"--\r\n")

    async def fields(self) -> tuple[Mapping[str, str], FileHead]:
        """Names (lower-case) and values of the fields before the file. Raises S3Error."""
        found: dict[str, str] = {}
        await self._until(self._delimiter)
        while True:
            await self._next_part()
            header = (await self._until(b"\r\n\r\n")).decode("utf-8", "replace")
            name, file_name, content_type = _describe(header)
            if name == "file":
                return found, FileHead(file_name or "", content_type, self._taken)
            try:
                value = (await self._until(self._delimiter)).decode()
            except UnicodeDecodeError:
                raise S3Error(Code.MALFORMED_POST) from None
            if name in found:
                raise S3Error(Code.MALFORMED_POST, f"The field {name[:64]} stands twice in the form.")
            found[name] = value

    async def content(self) -> AsyncIterator[Chunk]:
        """The file's bytes, up to its delimiter; then the rest of the body is taken and dropped."""
        keep = len(self._delimiter) - 1
        while True:
            at = self._buffer.find(self._delimiter)
            cut = at if at >= 0 else max(len(self._buffer) - keep, 0)
            if cut:
                piece = bytes(self._buffer[:cut])
                del self._buffer[:cut]
                yield piece
            if at >= 0:
                break
            await self._more()
        self._buffer.clear()
        async for _ in self._raw:
            pass

    async def _next_part(self) -> None:
        """Behind a delimiter: the line's end, or the end of all parts before there was a file."""
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer[:2] != b"\r\n":
            if self._buffer[:2] == b"--":
                raise S3Error(Code.WRONG_FILE_COUNT)
            raise S3Error(Code.MALFORMED_POST)
        self._take(2)

    async def _until(self, mark: bytes) -> bytes:
        """What stands before `mark`, which is taken too."""
        searched = 0
        while True:
            at = self._buffer.find(mark, searched)
            if self._taken + (at if at >= 0 else len(self._buffer) - len(mark)) > FIELDS_BYTES_MAX:
                raise S3Error(Code.POST_FIELDS_TOO_LARGE)
            if at >= 0:
                found = bytes(self._buffer[:at])
                self._take(at + len(mark))
                return found
            searched = max(len(self._buffer) - len(mark) + 1, 0)
            await self._more()

    def _take(self, count: int) -> None:
        del self._buffer[:count]
        self._taken += count

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._raw)
        except StopAsyncIteration:
            raise S3Error(Code.MALFORMED_POST) from None


def _describe(header: str) -> tuple[str, str | None, str | None]:
    """Name, file name and content type of a part."""
    name = file_name = content_type = None
    for line in header.split("\r\n"):
        title, _, value = line.partition(":")
        if title.strip().lower() == "content-disposition" and value.strip().lower().startswith("form-data"):
            for found in _PARAMETER.finditer(value):
                text = found[2] if found[2] is not None else found[3]
                text = re.sub(r"\\(.)", r"\1", text) if found[1].lower() == "name" else text
                if found[1].lower() == "name":
                    name = text
                else:
                    file_name = re.split(r"[/\\]", text)[-1]
        elif title.strip().lower() == "content-type":
            content_type = value.strip()
    if not name:
        raise S3Error(Code.MALFORMED_POST)
    return name.lower(), file_name, content_type
