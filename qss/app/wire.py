"""Values of qss.segments ↔ JSON, for the carrier between the mount and the offload process. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from qss.errors import CorruptData
from qss.ids import LocationId, SegmentId, StripeNo
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind, StoredSegment

Json = Any
P = ParamSpec("P")
T = TypeVar("T")


def _decoder(function: Callable[P, T]) -> Callable[P, T]:
    """Whatever does not fit is CorruptData."""

    @wraps(function)
    def decode(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CorruptData(f"a control value does not hold: {error!r}") from error

    return decode


def number(value: Json) -> int:
    if type(value) is not int or value < 0:
        raise CorruptData("a control value is not a number")
    return value


def segment_of(value: Json) -> SegmentId:
    return SegmentId(number(value))


@_decoder
def segments_of(value: Json) -> list[SegmentId]:
    return [segment_of(each) for each in value]


def stripe_of(value: Json) -> StripeNo:
    return StripeNo(number(value))


def path_to_json(path: Path) -> str:
    return os.fsdecode(path)


@_decoder
def path_of(value: Json) -> Path:
    path = Path(os.fsdecode(os.fsencode(value)))
    if not path.is_absolute():
        raise CorruptData("a control path is not absolute")
    return path


def sealed_to_json(segment: SealedSegment) -> Json:
    return {
        "id": segment.id,
        "kind": segment.kind.name,
        "length": segment.length,
        "sealed_ns": segment.sealed_ns,
        "needs_upto": segment.needs_upto,
    }


@_decoder
def sealed_of(value: Json) -> SealedSegment:
    return SealedSegment(
        id=segment_of(value["id"]),
        kind=SegmentKind[value["kind"]],
        length=number(value["length"]),
        sealed_ns=number(value["sealed_ns"]),
        needs_upto=segment_of(value["needs_upto"]),
    )


def stored_to_json(stored: StoredSegment) -> Json:
    return [sealed_to_json(stored.segment), stored.k, stored.m, stored.placed, stored.stored_bytes]


@_decoder
def stored_of(value: Json) -> StoredSegment:
    sealed, *numbers = value
    k, m, placed, stored_bytes = map(number, numbers)
    return StoredSegment(sealed_of(sealed), k, m, placed, stored_bytes)


def receipt_to_json(receipt: Receipt) -> Json:
    return {
        "segment": receipt.segment,
        "seal": receipt.seal.hex(),
        "k": receipt.k,
        "m": receipt.m,
        "placed": list(receipt.placed),
        "stored_bytes": receipt.stored_bytes,
    }


@_decoder
def receipt_of(value: Json) -> Receipt:
    return Receipt(
        segment=segment_of(value["segment"]),
        seal=bytes.fromhex(value["seal"]),
        k=number(value["k"]),
        m=number(value["m"]),
        placed=tuple(None if place is None else LocationId(str(place)) for place in value["placed"]),
        stored_bytes=number(value["stored_bytes"]),
    )


def point_to_json(point: RestorePoint | None) -> Json:
    if point is None:
        return None
    return {
        "checkpoint": list(point.checkpoint),
        "journals": list(point.journals),
        "cut_ns": point.cut_ns,
        "next_segment": point.next_segment,
    }


@_decoder
def point_of(value: Json) -> RestorePoint | None:
    if value is None:
        return None
    return RestorePoint(
        checkpoint=tuple(map(segment_of, value["checkpoint"])),
        journals=tuple(map(segment_of, value["journals"])),
        cut_ns=number(value["cut_ns"]),
        next_segment=segment_of(value["next_segment"]),
    )
