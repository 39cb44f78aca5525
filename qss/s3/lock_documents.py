"""XML of versioning and object lock ↔ values. Pure. Source: the S3 API reference, of each operation."""

from __future__ import annotations

from typing import Final

from qss.errors import CorruptData
from qss.s3.backend import Bucket, Versioning
from qss.s3.dates import iso, iso_date_ns
from qss.s3.documents import xml_body
from qss.s3.errors import Code, S3Error
from qss.s3.lock import DefaultRetention, Mode, ObjectLock, Retention
from qss.s3.message import Response
from qss.s3.render import xml_response
from qss.s3.scalars import integer_of
from qss.s3.xml import Node, element, leaf

_YEARS_MAX: Final = 100
_DAYS_MAX: Final = 36_500


def versioning_body(data: bytes) -> Versioning:
    root = xml_body(data, "VersioningConfiguration")
    if root.get("MfaDelete", "Disabled") != "Disabled":
        raise S3Error(Code.NOT_IMPLEMENTED, "MFA delete is not implemented.")
    status = root.get("Status")
    if not status:
        raise S3Error(Code.ILLEGAL_VERSIONING)
    try:
        return Versioning(status)
    except ValueError:
        raise S3Error(Code.MALFORMED_XML) from None


def versioning(bucket: Bucket) -> Response:
    """Without a status where it was never switched on."""
    content = [] if bucket.versioning is None else [leaf("Status", bucket.versioning.value)]
    return xml_response("VersioningConfiguration", content)


def lock_settings_body(data: bytes) -> DefaultRetention | None:
    root = xml_body(data, "ObjectLockConfiguration")
    if root.get("ObjectLockEnabled") != "Enabled":
        raise S3Error(Code.MALFORMED_XML)
    rule = root.find("Rule")
    if rule is None:
        return None
    default = rule.find("DefaultRetention")
    if default is None:
        raise S3Error(Code.MALFORMED_XML)
    days, years = _period(default, "Days", _DAYS_MAX), _period(default, "Years", _YEARS_MAX)
    if (days is None) == (years is None):
        raise S3Error(Code.MALFORMED_XML)
    return DefaultRetention(_mode(default), days or 0, years or 0)


def _period(node: Node, name: str, top: int) -> int | None:
    child = node.find(name)
    if child is None:
        return None
    value = integer_of(child.text.strip())
    if value is None:
        raise S3Error(Code.MALFORMED_XML)
    if value <= 0:
        raise S3Error(Code.INVALID_RETENTION_PERIOD, "Default retention period must be a positive integer value.")
    if value > top:
        raise S3Error(Code.INVALID_RETENTION_PERIOD, "Default retention period is too large.")
    return value


def _mode(node: Node) -> Mode:
    try:
        return Mode(node.get("Mode"))
    except ValueError:
        raise S3Error(Code.MALFORMED_XML) from None


def lock_settings(bucket: Bucket) -> Response:
    if not bucket.lock:
        raise S3Error(Code.NO_SUCH_LOCK_SETTINGS)
    content = [leaf("ObjectLockEnabled", "Enabled")]
    default = bucket.default_retention
    if default is not None:
        period = leaf("Days", default.days) if default.days else leaf("Years", default.years)
        content.append(element("Rule", element("DefaultRetention", leaf("Mode", default.mode.value), period)))
    return xml_response("ObjectLockConfiguration", content)


def retention_body(data: bytes) -> Retention | None:
    """None: an empty document, which takes the retention away."""
    root = xml_body(data, "Retention")
    if not root.children:
        return None
    try:
        return Retention(_mode(root), iso_date_ns(root.get("RetainUntilDate")))
    except CorruptData:
        raise S3Error(Code.MALFORMED_XML) from None


def retention(lock: ObjectLock) -> Response:
    if lock.retention is None:
        raise S3Error(Code.NO_SUCH_OBJECT_LOCK)
    until = leaf("RetainUntilDate", iso(lock.retention.until_ns))
    return xml_response("Retention", [leaf("Mode", lock.retention.mode.value), until])


def legal_hold_body(data: bytes) -> bool:
    status = xml_body(data, "LegalHold").get("Status")
    if status not in ("ON", "OFF"):
        raise S3Error(Code.MALFORMED_XML)
    return status == "ON"


def legal_hold(lock: ObjectLock) -> Response:
    if lock.legal_hold is None:
        raise S3Error(Code.NO_SUCH_OBJECT_LOCK)
    return xml_response("LegalHold", [leaf("Status", "ON" if lock.legal_hold else "OFF")])
