"""A request taken apart: its head, the bucket and key it names, its query. What the readers of operations read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qss.s3.backend import PART_NUMBER_MAX, UploadRef
from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead
from qss.s3.scalars import number_of
from qss.values import quick

PAGE_MAX: Final = 1000
"""Entries of a page, whatever is asked for."""
_NUMBER_DIGITS_MAX: Final = 10


@quick
@dataclass(frozen=True, slots=True)
class Apart:
    """Everything here raises S3Error for what does not hold."""

    head: RequestHead
    bucket: str
    key: str
    params: Mapping[str, str]

    @property
    def headers(self) -> Mapping[str, str]:
        return self.head.headers

    @property
    def version_id(self) -> str | None:
        return self.params.get("versionId")

    def number(self, name: str, default: int, top: int) -> int:
        """Of the query; `top` for more."""
        text = self.params.get(name)
        return default if text is None or text == "" else _number(name, text, top)

    def header_number(self, name: str, default: int, top: int) -> int:
        """Of the headers; `top` for more."""
        text = self.headers.get(name)
        return default if text is None else _number(name, text, top)

    def encode(self) -> bool:
        """Whether names in a listing are to be percent-encoded."""
        kind = self.params.get("encoding-type")
        if kind not in (None, "", "url"):
            raise S3Error(Code.INVALID_ARGUMENT, "Invalid Encoding Method specified in Request")
        return kind == "url"

    def upload(self) -> UploadRef:
        return UploadRef(self.bucket, self.key, self.params["uploadId"])

    def part_number(self) -> int:
        number = self.number("partNumber", 0, PART_NUMBER_MAX + 1)
        if not 1 <= number <= PART_NUMBER_MAX:
            raise S3Error(
                Code.INVALID_ARGUMENT, f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"
            )
        return number


def _number(name: str, text: str, top: int) -> int:
    value = number_of(text, _NUMBER_DIGITS_MAX)
    if value is None:
        raise S3Error(Code.INVALID_ARGUMENT, f"Provided {name} not an integer or within integer range")
    return min(value, top)
