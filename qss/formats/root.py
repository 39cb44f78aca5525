"""The root: the remote commit point, what the file system is now (docs/formats/root.md).

This is the plaintext record; `qss.offload.roots` encrypts and publishes it. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.shard import HASH_BYTES
from qss.ids import LocationId, SegmentId
from qss.limits import SHARDS_MAX
from qss.segments import RestorePoint

MAGIC: Final = b"QSSROOT\0"
VERSION: Final = 1
ROOT_BYTES_MAX: Final = 16 * 1024 * 1024
SEGMENTS_MAX: Final = 2**24
"""Segments one root may name: bounds what a reader allocates."""

_HEAD = struct.Struct("<8sBBB16sQQ16s32sqqQ")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_RUN = struct.Struct("<QI")


@dataclass(frozen=True, slots=True)
class RootLocation:
    """A location as the root remembers it: enough to find it again, and nothing secret."""

    name: LocationId
    url: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Root:
    fs_id: bytes
    generation: int  # counted up from 1 with every publication
    epoch: int  # counted up whenever another writer takes over
    writer: bytes  # 16 bytes, one machine's state directory
    previous: bytes  # `digest` of the root before, zeros for the first
    k: int
    m: int
    point: RestorePoint
    created_ns: int
    created_by: str = ""
    locations: tuple[RootLocation, ...] = field(default=())

    @property
    def order(self) -> tuple[int, int]:
        """How a machine compares roots with the last it knows; which of several is the newest: docs/formats/root.md."""
        return self.epoch, self.generation

    def digest(self) -> bytes:
        return blake3(self.pack()).digest()

    def pack(self) -> bytes:
        parts = [
            _HEAD.pack(
                MAGIC, VERSION, self.k, self.m, self.fs_id, self.generation, self.epoch, self.writer, self.previous,
                self.created_ns, self.point.cut_ns, self.point.next_segment,
            ),
            _pack_runs(self.point.checkpoint),
            _pack_runs(self.point.journals),
            _pack_text(self.created_by),
            _U16.pack(len(self.locations)),
        ]  # fmt: skip
        for location in self.locations:
            parts += [_pack_text(location.name), _pack_text(location.url), _U16.pack(len(location.labels))]
            for name, value in location.labels:
                parts += [_pack_text(name), _pack_text(value)]
        return b"".join(parts)

    @classmethod
    def unpack(cls, untrusted: bytes) -> Root:
        """Raises CorruptData."""
        try:
            return _unpack(_Reader(untrusted))
        except (struct.error, UnicodeDecodeError) as error:
            raise CorruptData("a root record does not hold") from error


def _unpack(reader: _Reader) -> Root:
    (magic, version, k, m, fs_id, generation, epoch, writer, previous, created_ns, cut_ns,
     next_segment) = reader.take(_HEAD)  # fmt: skip
    if magic != MAGIC or version != VERSION:
        raise CorruptData("this is not a root of a version known to this program")
    if not (k >= 1 and k + m <= SHARDS_MAX and generation >= 1):
        raise CorruptData("the figures of a root are out of bounds")
    checkpoint, journals = reader.runs(), reader.runs()
    created_by = reader.text()
    locations = tuple(
        RootLocation(
            LocationId(reader.text()), reader.text(), tuple((reader.text(), reader.text()) for _ in range(reader.u16()))
        )
        for _ in range(reader.u16())
    )
    reader.finish()
    point = RestorePoint(checkpoint, journals, cut_ns, SegmentId(next_segment))
    return Root(fs_id, generation, epoch, writer, previous, k, m, point, created_ns, created_by, locations)


def _pack_runs(segments: tuple[SegmentId, ...]) -> bytes:
    """Ids as runs of neighbours (first, count), in their order."""
    runs: list[list[int]] = []
    for segment in segments:
        if runs and segment == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([segment, 1])
    return _U32.pack(len(runs)) + b"".join(_RUN.pack(first, count) for first, count in runs)


def _pack_text(text: str) -> bytes:
    data = text.encode()
    return _U16.pack(len(data)) + data


class _Reader:
    """A position in untrusted bytes."""

    def __init__(self, untrusted: bytes) -> None:
        self._data = untrusted
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        fields = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return fields

    def u16(self) -> int:
        return int(self.take(_U16)[0])

    def text(self) -> str:
        length = self.u16()
        data = bytes(self._data[self._at : self._at + length])
        if len(data) != length:
            raise CorruptData("a root record is cut short")
        self._at += length
        return data.decode()

    def runs(self) -> tuple[SegmentId, ...]:
        segments: list[SegmentId] = []
        for _ in range(int(self.take(_U32)[0])):
            first, count = self.take(_RUN)
            if len(segments) + count > SEGMENTS_MAX:
                raise CorruptData("a root names more segments than there can be")
            segments.extend(SegmentId(number) for number in range(first, first + count))
        return tuple(segments)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise CorruptData("a root record is longer than it says")


assert HASH_BYTES == 32
