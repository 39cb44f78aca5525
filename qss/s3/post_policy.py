"""The policy of a POST form: what a page's owner allows browsers to upload. Pure.

Source: "POST policy" of the Amazon S3 API reference. Every field has to be covered by a condition, every condition has
to hold, and before `expiration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qss.errors import CorruptData
from qss.s3 import strict_json
from qss.s3.dates import iso_date_ns
from qss.s3.errors import Code, S3Error
from qss.s3.scalars import base64_of

POLICY_BYTES_MAX: Final = 20 * 1024
_FREE: Final = ("policy", "x-amz-signature", "file")  # need no condition; neither does x-ignore-…
_ALIASES: Final = {"redirect": "success_action_redirect"}


@dataclass(frozen=True, slots=True)
class _Condition:
    kind: str  # "eq", "starts-with"
    field: str  # lower-case
    value: str

    def holds(self, fields: Mapping[str, str]) -> bool:
        found = fields.get(self.field)
        if found is None:
            return self.kind == "starts-with" and not self.value
        if self.kind == "eq":
            return found == self.value
        values = found.split(",") if self.field == "content-type" else [found]
        return all(each.strip().startswith(self.value) or each.startswith(self.value) for each in values)


@dataclass(frozen=True, slots=True)
class PostPolicy:
    """`least` and `most`: bytes of the file."""

    expires_ns: int
    conditions: tuple[_Condition, ...]
    least: int = 0
    most: int | None = None

    def check(self, fields: Mapping[str, str], now_ns: int) -> None:
        """`fields`: lower-case names, with `bucket`. Raises S3Error ACCESS_DENIED."""
        if now_ns >= self.expires_ns:
            raise _denied("Policy expired.")
        for condition in self.conditions:
            if not condition.holds(fields):
                raise _denied(
                    f'Policy Condition failed: ["{condition.kind}", "${condition.field}", "{condition.value}"]'
                )
        covered = {condition.field for condition in self.conditions}
        for name in fields:
            if name not in _FREE and not name.startswith("x-ignore-") and name not in covered:
                raise _denied(f"Extra input fields: {name[:64]}")

    def check_length(self, length: int) -> None:
        """Raise S3Error ENTITY_TOO_SMALL or ENTITY_TOO_LARGE."""
        if length < self.least:
            raise S3Error(Code.ENTITY_TOO_SMALL, "Your proposed upload is smaller than the minimum allowed size")
        if self.most is not None and length > self.most:
            raise S3Error(Code.ENTITY_TOO_LARGE, "Your proposed upload exceeds the maximum allowed size")


def _denied(why: str) -> S3Error:
    return S3Error(Code.ACCESS_DENIED, f"Invalid according to Policy: {why}")


def _invalid(why: str) -> S3Error:
    return S3Error(Code.INVALID_POLICY_DOCUMENT, f"Invalid Policy: {why}")


def read_post_policy(encoded: str) -> PostPolicy:
    """From the field `policy`, base64 of JSON. Raises S3Error INVALID_POLICY_DOCUMENT."""
    if len(encoded) > POLICY_BYTES_MAX * 4 // 3:
        raise _invalid("Policy is too long.")
    try:
        value = strict_json.load(base64_of(encoded) or b"")
    except CorruptData:
        raise _invalid("Invalid JSON.") from None
    if not isinstance(value, dict) or value.keys() != {"expiration", "conditions"}:
        raise _invalid("Policy wants expiration and conditions.")
    if not isinstance(value["conditions"], list):
        raise _invalid("Conditions are no list.")
    conditions: list[_Condition] = []
    least, most = 0, None
    for each in value["conditions"]:
        if isinstance(each, list) and each and each[0] == "content-length-range":
            low, high = _range(each)
            least, most = max(least, low), high if most is None else min(most, high)
        else:
            conditions += _conditions(each)
    return PostPolicy(_expiration(value["expiration"]), tuple(conditions), least, most)


def _expiration(text: Any) -> int:
    try:
        return iso_date_ns(text)
    except (TypeError, CorruptData):  # TypeError: it is no text
        raise _invalid("Invalid 'expiration' value.") from None


def _range(value: list[Any]) -> tuple[int, int]:
    try:
        _, low, high = (int(each) if number else each for number, each in enumerate(value))
    except (TypeError, ValueError, OverflowError):
        raise _invalid("content-length-range wants two numbers.") from None
    return low, high


def _conditions(value: Any) -> list[_Condition]:
    if isinstance(value, dict) and value:
        if not all(isinstance(text, str) for text in value.values()):
            raise _invalid("Invalid Simple-Condition: value must be a string.")
        return [_Condition("eq", _name(name), text) for name, text in value.items()]
    if isinstance(value, list) and len(value) == 3 and all(isinstance(each, str) for each in value):
        kind, name, text = value
        if kind.lower() in ("eq", "starts-with") and name.startswith("$"):
            return [_Condition(kind.lower(), _name(name[1:]), text)]
    raise _invalid("Invalid condition.")


def _name(name: str) -> str:
    return _ALIASES.get(name.lower(), name.lower())
