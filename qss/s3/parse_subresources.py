"""Request heads of `qss.s3.subresources` → operations, and the lock headers of writes. Pure; raises S3Error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qss.errors import CorruptData
from qss.s3 import subresources as sub
from qss.s3.apart import PAGE_MAX, Apart
from qss.s3.backend import PART_NUMBER_MAX, VersionsQuery
from qss.s3.dates import iso_date_ns
from qss.s3.errors import Code, S3Error
from qss.s3.lock import UNLOCKED, Mode, ObjectLock, Retention

UNSET_NAMES: Final = (
    "accelerate", "logging", "notification", "requestPayment", "replication", "website", "analytics",
    "intelligent-tiering", "inventory", "metrics",
)  # fmt: skip
"""Subresources of buckets that nobody can set here; what they answer: `qss.s3.unset`."""
_REMOVABLE: Final = frozenset(UNSET_NAMES) - {"accelerate", "logging", "notification", "requestPayment"}
_LOCK_MODE: Final = "x-amz-object-lock-mode"
_LOCK_UNTIL: Final = "x-amz-object-lock-retain-until-date"
_LOCK_HOLD: Final = "x-amz-object-lock-legal-hold"
_BYPASS: Final = "x-amz-bypass-governance-retention"


def bypasses(headers: Mapping[str, str]) -> bool:
    """Whether GOVERNANCE is to be bypassed. It takes the right to do so as well."""
    return headers.get(_BYPASS, "").lower() == "true"


def lock_of(headers: Mapping[str, str]) -> ObjectLock:
    """The lock that a write asks for. Whether its time is to come is not known here: `qss.s3.lock.check_future`."""
    mode, until, hold = headers.get(_LOCK_MODE), headers.get(_LOCK_UNTIL), headers.get(_LOCK_HOLD)
    if mode is None and until is None and hold is None:
        return UNLOCKED
    if (mode is None) != (until is None):
        raise S3Error(Code.INVALID_ARGUMENT, f"{_LOCK_UNTIL} and {_LOCK_MODE} must both be supplied")
    if hold not in (None, "ON", "OFF"):
        raise S3Error(Code.INVALID_ARGUMENT, "Legal Hold must be either of 'ON' or 'OFF'")
    retention = None
    if mode is not None and until is not None:
        try:
            retention = Retention(Mode(mode), iso_date_ns(until))
        except ValueError:
            raise S3Error(Code.INVALID_ARGUMENT, "Unknown wormMode directive.") from None
        except CorruptData:
            raise S3Error(Code.INVALID_ARGUMENT, "The retain until date is not an ISO 8601 date.") from None
    return ObjectLock(retention, None if hold is None else hold == "ON")


def _list_versions(asked: Apart) -> sub.ListVersions:
    params = asked.params
    key_after, version_after = params.get("key-marker", ""), params.get("version-id-marker")
    if version_after is not None and not key_after:
        raise S3Error(Code.INVALID_ARGUMENT, "A version-id marker cannot be specified without a key marker.")
    if version_after == "":
        raise S3Error(Code.INVALID_ARGUMENT, "A version-id marker cannot be empty.")
    query = VersionsQuery(
        asked.bucket,
        params.get("prefix", ""),
        params.get("delimiter", ""),
        key_after,
        version_after,
        asked.number("max-keys", PAGE_MAX, PAGE_MAX),
    )
    return sub.ListVersions(query, asked.encode())


def _attributes(asked: Apart) -> sub.GetObjectAttributes:
    named = asked.headers.get("x-amz-object-attributes", "").split(",")
    names = frozenset(each.strip() for each in named if each.strip())
    if not names or not names <= sub.ATTRIBUTE_NAMES:
        raise S3Error(Code.INVALID_ARGUMENT, "Invalid attribute name specified.")
    parts_max = asked.header_number("x-amz-max-parts", PAGE_MAX, PAGE_MAX)
    wanted = sub.Wanted(names, parts_max, asked.header_number("x-amz-part-number-marker", 0, PART_NUMBER_MAX))
    return sub.GetObjectAttributes(asked.bucket, asked.key, wanted, asked.version_id)


def _unset(name: str) -> Mapping[str, Reader]:
    rows: dict[str, Reader] = {"GET": lambda r: sub.GetUnset(r.bucket, name, "id" in r.params)}
    if name in _REMOVABLE:
        rows["DELETE"] = lambda r: sub.DeleteUnset(r.bucket, name)
    return rows


Reader = Callable[[Apart], sub.Subresource]
ROWS: Final[Mapping[tuple[str, str], Mapping[str, Reader]]] = {
    ("bucket", "versioning"): {
        "GET": lambda r: sub.GetVersioning(r.bucket),
        "PUT": lambda r: sub.PutVersioning(r.bucket),
    },
    ("bucket", "versions"): {"GET": _list_versions},
    ("bucket", "object-lock"): {
        "GET": lambda r: sub.GetLockSettings(r.bucket),
        "PUT": lambda r: sub.PutLockSettings(r.bucket),
    },
    ("bucket", "lifecycle"): {
        "GET": lambda r: sub.GetLifecycle(r.bucket),
        "PUT": lambda r: sub.PutLifecycle(r.bucket),
        "DELETE": lambda r: sub.DeleteLifecycle(r.bucket),
    },
    ("bucket", "tagging"): {
        "GET": lambda r: sub.GetBucketTags(r.bucket),
        "PUT": lambda r: sub.PutBucketTags(r.bucket),
        "DELETE": lambda r: sub.DeleteBucketTags(r.bucket),
    },
    ("key", "attributes"): {"GET": _attributes},
    **{("bucket", name): _unset(name) for name in UNSET_NAMES},
    ("key", "retention"): {
        "GET": lambda r: sub.GetRetention(r.bucket, r.key, r.version_id),
        "PUT": lambda r: sub.PutRetention(r.bucket, r.key, r.version_id, bypasses(r.headers)),
    },
    ("key", "legal-hold"): {
        "GET": lambda r: sub.GetLegalHold(r.bucket, r.key, r.version_id),
        "PUT": lambda r: sub.PutLegalHold(r.bucket, r.key, r.version_id),
    },
}
"""As the table of `qss.s3.parse`, which takes these in."""
