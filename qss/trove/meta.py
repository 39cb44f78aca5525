"""Metadata of records as bytes: compact JSON, keys of one letter. Decoders raise CorruptData only."""

from __future__ import annotations

import json
from typing import Any, Final

from qss.errors import CorruptData
from qss.s3.backend import Attributes, Checksum, EtagMode

LATE_ROOM_BYTES: Final = 128
"""Kept behind the footer of a streamed record: the longest checksum (SHA256, composite) takes 90."""


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
    return value


def _checksum_list(checksum: Checksum | None) -> dict[str, Any]:
    return {} if checksum is None else {"c": [checksum.algorithm, checksum.value, checksum.composite]}


def encode_object(attributes: Attributes, checksum: Checksum | None = None) -> bytes:
    return _dump(_attributes_dict(attributes) | _checksum_list(checksum))


def encode_late(checksum: Checksum | None) -> bytes:
    return _dump(_checksum_list(checksum))


def attributes_of(value: dict[str, Any]) -> Attributes:
    """Raises CorruptData."""
    try:
        return Attributes(
            headers=dict(value.get("h", {})),
            metadata=dict(value.get("m", {})),
            tags=tuple((str(name), str(tag)) for name, tag in value.get("t", [])),
            storage_class=str(value.get("s", "STANDARD")),
        )
    except (TypeError, ValueError):
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


def encode_tags(tags: tuple[tuple[str, str], ...]) -> bytes:
    return _dump({"t": [list(tag) for tag in tags]})


def tags_of(data: bytes) -> tuple[tuple[str, str], ...]:
    return attributes_of(load(data)).tags


def encode_bucket(created_ns: int, region: str) -> bytes:
    return _dump({"n": created_ns, "r": region})


def bucket_of(data: bytes) -> tuple[int, str]:
    """(created_ns, region); zero and the default for a bucket whose own record was lost."""
    value = load(data)
    created, region = value.get("n", 0), value.get("r", "us-east-1")
    if not isinstance(created, int) or not isinstance(region, str):
        raise CorruptData("bucket metadata has a wrong shape")
    return created, region


def encode_upload(attributes: Attributes, algorithm: str | None, composite: bool, mode: EtagMode) -> bytes:
    return _dump(_attributes_dict(attributes) | {"a": algorithm, "k": composite, "e": mode.value})


def upload_of(value: dict[str, Any]) -> tuple[str | None, bool, EtagMode]:
    """(checksum algorithm, composite, etag mode). Raises CorruptData."""
    try:
        algorithm = value.get("a")
        return (None if algorithm is None else str(algorithm)), bool(value.get("k", True)), EtagMode(value.get("e"))
    except ValueError:
        raise CorruptData("upload metadata has a wrong shape") from None
