"""Range and If-* of reads, pure. Sources: RFC 9110 sections 13 and 14; "Conditional reads" of the S3 user guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qss.errors import CorruptData
from qss.s3.backend import StoredObject, WriteCondition
from qss.s3.dates import SECOND_NS, http_date_ns
from qss.s3.errors import Code, S3Error
from qss.s3.scalars import number_of
from qss.values import quick


@dataclass(frozen=True, slots=True)
class ByteRange:
    """first-last as in HTTP, both inclusive; `first` None: the last `last` bytes; `last` None: up to the end."""

    first: int | None
    last: int | None

    def resolve(self, size: int) -> tuple[int, int]:
        """[start, stop) of an object of `size` bytes. Raises S3Error INVALID_RANGE."""
        if self.first is None:
            count = self.last or 0
            if count == 0 or size == 0:
                raise S3Error(Code.INVALID_RANGE)
            return max(size - count, 0), size
        if self.first >= size:
            raise S3Error(Code.INVALID_RANGE)
        return self.first, size if self.last is None else min(self.last + 1, size)


def parse_range(text: str | None) -> ByteRange | None:
    """None for no header, another unit, several ranges or nonsense: RFC 9110 has such a header ignored."""
    if text is None or not text.startswith("bytes="):
        return None
    before, dash, behind = (part.strip() for part in text[6:].partition("-"))
    first, last = number_of(before, 19), number_of(behind, 19)
    if not dash or (first is None and last is None) or (before and first is None) or (behind and last is None):
        return None
    if first is not None and last is not None and first > last:
        return None
    return ByteRange(first, last)


@quick
@dataclass(frozen=True, slots=True)
class ReadCondition:
    """Times in nanoseconds since 1970, whole seconds."""

    if_match: tuple[str, ...] | None = None  # etags without quotes, or ("*",)
    if_none_match: tuple[str, ...] | None = None
    if_modified_since_ns: int | None = None
    if_unmodified_since_ns: int | None = None
    if_range: str | None = None  # as sent

    def takes_range(self, found: StoredObject) -> bool:
        """Whether a range may be answered: what If-Range says of the object, of which the client has a part, still
        holds. Weak etags never do. Source: RFC 9110 section 13.1.5."""
        if self.if_range is None:
            return True
        if self.if_range.endswith('"'):
            return self.if_range == f'"{found.etag}"'
        return parse_http_date(self.if_range) == found.modified_ns // SECOND_NS * SECOND_NS

    def check(self, found: StoredObject) -> None:
        """Raise S3Error PRECONDITION_FAILED or NOT_MODIFIED unless the object may be read."""
        modified_ns = found.modified_ns // SECOND_NS * SECOND_NS
        if self.if_match is not None:
            if not _among(found.etag, self.if_match):
                raise S3Error(Code.PRECONDITION_FAILED)
        elif self.if_unmodified_since_ns is not None and modified_ns > self.if_unmodified_since_ns:
            raise S3Error(Code.PRECONDITION_FAILED)
        if self.if_none_match is not None:
            if _among(found.etag, self.if_none_match):
                raise S3Error(Code.NOT_MODIFIED)
        elif self.if_modified_since_ns is not None and modified_ns <= self.if_modified_since_ns:
            raise S3Error(Code.NOT_MODIFIED)

    def check_copy(self, found: StoredObject) -> None:
        """As `check`, for a copy source: everything that does not hold is PRECONDITION_FAILED."""
        try:
            self.check(found)
        except S3Error:
            raise S3Error(Code.PRECONDITION_FAILED) from None


_CONDITIONAL: Final = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
_UNCONDITIONAL: Final = ReadCondition()
_UNCONDITIONAL_WRITE: Final = WriteCondition()


def _among(etag: str, wanted: tuple[str, ...]) -> bool:
    return "*" in wanted or etag in wanted


def parse_etags(text: str | None) -> tuple[str, ...] | None:
    """A list of etags; quotes and the weak mark are dropped."""
    if text is None:
        return None
    return tuple(piece.strip().removeprefix("W/").strip('"') for piece in text.split(","))


def parse_http_date(text: str | None) -> int | None:
    """Nanoseconds; None when absent or not a date (then ignored, as HTTP asks)."""
    if text is None:
        return None
    try:
        return http_date_ns(text)
    except CorruptData:
        return None


def read_condition(headers: Mapping[str, str], prefix: str = "") -> ReadCondition:
    """From If-* headers, or those of a copy source with `prefix` "x-amz-copy-source-"."""
    if not prefix and _CONDITIONAL.isdisjoint(headers):
        return _UNCONDITIONAL
    return ReadCondition(
        parse_etags(headers.get(f"{prefix}if-match")),
        parse_etags(headers.get(f"{prefix}if-none-match")),
        parse_http_date(headers.get(f"{prefix}if-modified-since")),
        parse_http_date(headers.get(f"{prefix}if-unmodified-since")),
        None if prefix else headers.get("if-range"),
    )


def _bare(etag: str | None) -> str | None:
    """Without quotes. Writes know no weak etags."""
    return None if etag is None else etag.strip().strip('"')


def delete_condition(etag: str | None, modified: str | None, size: str | None) -> WriteCondition:
    """Of a delete, from headers or from its place in a list. What cannot be read is refused: S3Error, never ignored."""
    if etag is None and modified is None and size is None:
        return _UNCONDITIONAL_WRITE
    modified_ns = parse_http_date(modified)
    if modified is not None and modified_ns is None:
        raise S3Error(Code.INVALID_ARGUMENT, "The last modified time to match is not an HTTP date.")
    if_size = None if size is None else number_of(size)
    if size is not None and if_size is None:
        raise S3Error(Code.INVALID_ARGUMENT, "The size to match is not a number of bytes.")
    return WriteCondition(
        _bare(etag),
        if_modified_s=None if modified_ns is None else modified_ns // SECOND_NS,
        if_size=if_size,
    )


def write_condition(headers: Mapping[str, str]) -> WriteCondition:
    """If-Match and If-None-Match of a write."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        return _UNCONDITIONAL_WRITE
    return WriteCondition(_bare(match), _bare(none_match))
