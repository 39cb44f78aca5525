"""Metadata of records as bytes: compact JSON, keys of one letter. Decoders raise CorruptData only."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from typing import Any, Final

from qss.errors import CorruptData
from qss.formats.sse import Envelope, decode_envelope
from qss.s3.backend import Attributes, Bucket, Checksum, CreateUpload, EtagMode, Versioning
from qss.s3.lock import UNLOCKED, DefaultRetention, Mode, ObjectLock, Retention

LATE_ROOM_BYTES: Final = 128
"""Kept behind the footer of a streamed record: the longest checksum (SHA256, composite) takes 90."""


_VERSIONING: Final = {each.value[0]: each for each in Versioning}


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode() if value else b""


def load(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; {} for no bytes."""
    if not data:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise CorruptData("metadata is not JSON") from None
    if not isinstance(value, dict):
        raise CorruptData("metadata is not an object")
    return value


def _attributes_dict(attributes: Attributes) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if attributes.headers:
        value["h"] = dict(attributes.headers)
    if attributes.metadata:
        value["m"] = dict(attributes.metadata)
    if attributes.tags:
        value["t"] = [list(tag) for tag in attributes.tags]
    if attributes.storage_class != "STANDARD":
        value["s"] = attributes.storage_class
    if attributes.lock is not UNLOCKED:
        value |= _lock_dict(attributes.lock)
    return value


def _lock_dict(lock: ObjectLock) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if lock.retention is not None:
        value["r"] = [lock.retention.mode.value, lock.retention.until_ns]
    if lock.legal_hold is not None:
        value["g"] = lock.legal_hold
    return value


def _lock_of(value: dict[str, Any]) -> ObjectLock:
    if "r" not in value and "g" not in value:
        return UNLOCKED
    retention, hold = value.get("r"), value.get("g")
    return ObjectLock(
        None if retention is None else Retention(Mode(retention[0]), int(retention[1])),
        None if hold is None else bool(hold),
    )


def _checksum_list(checksum: Checksum | None) -> dict[str, Any]:
    return {} if checksum is None else {"c": [checksum.algorithm, checksum.value, checksum.composite]}


def _envelope_dict(envelope: Envelope | None) -> dict[str, Any]:
    return {} if envelope is None else {"x": base64.b64encode(envelope.encode()).decode()}


def encode_object(attributes: Attributes, checksum: Checksum | None = None, envelope: Envelope | None = None) -> bytes:
    return _dump(_attributes_dict(attributes) | _checksum_list(checksum) | _envelope_dict(envelope))


def envelope_of(value: dict[str, Any]) -> Envelope | None:
    """Of an object or an upload. Raises CorruptData."""
    return decode_envelope(_bytes_of(value["x"])) if "x" in value else None


def encode_part(salt: bytes) -> bytes:
    """Of a part: what its body's key is derived with; b"" for a plain one."""
    return _dump({"z": base64.b64encode(salt).decode()} if salt else {})


def salt_of(value: dict[str, Any]) -> bytes:
    """Of a sealed part. Raises CorruptData."""
    return _bytes_of(value.get("z"))


def _bytes_of(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise CorruptData("metadata has a wrong shape") from None


def encode_late(checksum: Checksum | None) -> bytes:
    return _dump(_checksum_list(checksum))


_NO_ATTRIBUTES: Final = Attributes()


def attributes_of(value: dict[str, Any]) -> Attributes:
    """Raises CorruptData."""
    if not value:
        return _NO_ATTRIBUTES
    try:
        return Attributes(
            headers=dict(value.get("h", {})),
            metadata=dict(value.get("m", {})),
            tags=tuple((str(name), str(tag)) for name, tag in value.get("t", [])),
            storage_class=str(value.get("s", "STANDARD")),
            lock=_lock_of(value),
        )
    except (TypeError, ValueError, LookupError):
        raise CorruptData("metadata has a wrong shape") from None


def checksum_of(value: dict[str, Any]) -> Checksum | None:
    """Raises CorruptData."""
    if "c" not in value:
        return None
    try:
        algorithm, text, composite = value["c"]
    except (TypeError, ValueError):
        raise CorruptData("checksum has a wrong shape") from None
    return Checksum(str(algorithm), str(text), bool(composite))


def amended(attributes: Attributes, amend: bytes) -> Attributes:
    """The attributes with what an AMEND says in their place. Raises CorruptData."""
    value = load(amend)
    found = attributes_of(value)
    lock = replace(
        attributes.lock,
        retention=found.lock.retention if "r" in value else attributes.lock.retention,
        legal_hold=found.lock.legal_hold if "g" in value else attributes.lock.legal_hold,
    )
    return replace(attributes, tags=found.tags if "t" in value else attributes.tags, lock=lock)


def amend_tags(amend: bytes, tags: tuple[tuple[str, str], ...]) -> bytes:
    """What an AMEND says (b"": nothing yet), with other tags."""
    return _dump(load(amend) | {"t": [list(tag) for tag in tags]})


def amend_lock(amend: bytes, lock: ObjectLock) -> bytes:
    """What an AMEND says, with another lock."""
    return _dump(load(amend) | {"r": None} | _lock_dict(lock))


def encode_bucket(bucket: Bucket) -> bytes:
    value: dict[str, Any] = {"n": bucket.created_ns, "r": bucket.region}
    if bucket.versioning is not None:
        value["v"] = bucket.versioning.value[0]
    if bucket.lock:
        value["l"] = True
    if bucket.encrypted:
        value["x"] = True
    default = bucket.default_retention
    if default is not None:
        value["d"] = [default.mode.value, default.days, default.years]
    return _dump(value)


def bucket_of(name: str, data: bytes) -> Bucket:
    """Raises CorruptData. Time zero and the default region for a bucket whose own record was lost."""
    value = load(data)
    created, region, default = value.get("n", 0), value.get("r", "us-east-1"), value.get("d")
    if not isinstance(created, int) or not isinstance(region, str):
        raise CorruptData("bucket metadata has a wrong shape")
    try:
        versioning = _VERSIONING[value["v"]] if "v" in value else None
        retention = None if default is None else DefaultRetention(Mode(default[0]), int(default[1]), int(default[2]))
    except (TypeError, ValueError, LookupError):
        raise CorruptData("bucket metadata has a wrong shape") from None
    return Bucket(name, created, region, versioning, bool(value.get("l")), retention, bool(value.get("x")))


def encode_upload(request: CreateUpload, envelope: Envelope | None = None) -> bytes:
    how = {"a": request.checksum_algorithm, "k": request.checksum_composite, "e": request.etag_mode.value}
    return _dump(_attributes_dict(request.attributes) | how | _envelope_dict(envelope))


def upload_of(value: dict[str, Any]) -> tuple[str | None, bool, EtagMode]:
    """(checksum algorithm, composite, etag mode). Raises CorruptData."""
    try:
        algorithm = value.get("a")
        return (None if algorithm is None else str(algorithm)), bool(value.get("k", True)), EtagMode(value.get("e"))
    except ValueError:
        raise CorruptData("upload metadata has a wrong shape") from None
