"""Large bodies past the page cache: the same bytes on the disk, whole pages only, and nothing lost in a power cut."""

from __future__ import annotations

import asyncio
import errno
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.formats.volume import Header, Kind, Superblock, hash_blocks
from qss.host import PosixDisk, SystemClock
from qss.host.disk import DIRECT_BYTES, Handle
from qss.s3.backend import Attributes, PutRequest
from qss.trove.drives import Drive
from qss.trove.slots import DIRECT_BODY_BYTES_MIN, PIECE_BYTES, SPARE_PIECES_MAX, Slot, Volume
from tests.harness.trove_node import Bytes, PowerCutDisk, content, drop_dead, node

_CACHED, _DIRECT = Handle(1), Handle(2)


class _PageDisk(PosixDisk):
    """One file in memory, which notes which way each page was written."""

    def __init__(self, refuse: bool = False) -> None:
        self.refuse = refuse
        self.bytes = bytearray()
        self.pages: dict[Handle, set[int]] = {_CACHED: set(), _DIRECT: set()}

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        data = b"".join(bytes(part) for part in parts)
        if handle == _DIRECT:
            if self.refuse:
                raise OSError(errno.EINVAL, "wants larger blocks")
            assert data
            assert position % DIRECT_BYTES == len(data) % DIRECT_BYTES == 0
        self.bytes.extend(bytes(max(0, position + len(data) - len(self.bytes))))
        self.bytes[position : position + len(data)] = data
        self.pages[handle] |= set(range(position // DIRECT_BYTES, -(-(position + len(data)) // DIRECT_BYTES)))
        return len(data)


def _fill(disk: _PageDisk, position: int, body: bytes, key: bytes = b"bucket/key") -> Slot:
    volume = Volume(Path("v"), _CACHED, Superblock(1, 0, bytes(16), bytes(16)), Drive(Path(), "", SystemClock()))
    slot = Slot(disk, volume, position, Header(Kind.OBJECT, key, 1, body_len=len(body)), [])
    slot.direct = _DIRECT
    rest = memoryview(body)
    while rest:
        piece = slot.piece()
        rest = piece.take(rest)
        slot.write(piece)
    return slot


@given(st.integers(2, 300), st.integers(1, 3 * DIRECT_BYTES), st.integers(0, 2**16), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_position_and_length_lands_where_it_should(at: int, odd: int, seed: int, refuse: bool) -> None:
    body = random.Random(seed).randbytes(2 * PIECE_BYTES + odd)
    disk = _PageDisk(refuse)
    slot = _fill(disk, at * 64, body)
    start = slot.position + slot.header.body_at
    assert disk.bytes[start : start + len(body)] == body
    assert not any(disk.bytes[:start])
    assert slot.table == hash_blocks(body)
    assert not disk.pages[_DIRECT] & disk.pages[_CACHED]
    assert refuse or len(disk.pages[_DIRECT]) >= len(body) // DIRECT_BYTES - 1


def test_spares_are_few(tmp_path: Path) -> None:
    disk = _PageDisk()
    slot = _fill(disk, 128, bytes(PIECE_BYTES * (SPARE_PIECES_MAX + 3)))
    many = [slot.piece() for _ in range(SPARE_PIECES_MAX + 3)]
    slot.written = 0
    for piece in many:
        piece.take(memoryview(bytes(PIECE_BYTES)))
        slot.write(piece)
    assert len(slot.spares) == SPARE_PIECES_MAX


class _NoDirect(PowerCutDisk):
    def open_direct(self, path: Path) -> Handle | None:
        return None


@pytest.mark.parametrize("kind", [PowerCutDisk, _NoDirect])
def test_large_bodies_side_by_side_survive_a_power_cut(tmp_path: Path, kind: type[PowerCutDisk]) -> None:
    rng = random.Random(7)
    bodies = {f"k{'e' * n}y": rng.randbytes(DIRECT_BODY_BYTES_MIN + n * 1000) for n in range(3)}

    async def write(disk: PowerCutDisk) -> None:
        first = node(tmp_path / "n", disk)
        await first.store.create_bucket("bucket", "us-east-1")
        await asyncio.gather(
            *(
                first.store.put(PutRequest("bucket", key, Attributes()), Bytes(body, piece=300_000))
                for key, body in bodies.items()
            )
        )
        drop_dead(first)
        disk.cut_power(rng)

    async def read() -> None:
        again = node(tmp_path / "n")
        for key, body in bodies.items():
            assert await content(again.store, "bucket", key) == body
        await again.aclose()

    asyncio.run(write(kind()))
    asyncio.run(read())
