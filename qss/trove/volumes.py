"""Volumes: the append-only files where all bytes of a node are. Knows records and positions; knows no keys, no index.

Order of durability of one record, and what a crash leaves:
  1. header            a record without footer: dead space, voided at the next start
  2. body              the same
  3. table and footer  a whole record, not yet acknowledged: it may be there after the crash or not
  4. fdatasync         from here it survives a power cut
  5. index, reply      the caller's (store.py, commit.py)

All calls are synchronous and belong to one thread, but for `sync`, `Slot.write` and `read`, which may run in a pool.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.errors import CorruptData, NoSpace, Retryable
from qss.formats.volume import (
    SUPERBLOCK_BYTES,
    Footer,
    Header,
    Kind,
    Superblock,
    decode_superblock,
    encode_footer,
    encode_header,
    encode_record,
)
from qss.host import Clock, Disk, Entropy
from qss.limits import GIB, MIB
from qss.trove.rows import Place
from qss.trove.slots import DIRECT_BODY_BYTES_MIN, Slot, Volume

VOLUME_BYTES_MAX: Final = 8 * GIB
SMALL_BODY_BYTES_MAX: Final = 1 * MIB
"""Bodies up to this are written in one go; larger ones have volumes of their own, so that syncing a small object does
not wait for the bytes of a big one."""
ALLOWANCE_BYTES: Final = 16 * MIB
RESERVE_BYTES: Final = 64 * MIB
"""Disk space kept for tombstones: deletes work on a full disk."""

assert ALLOWANCE_BYTES < RESERVE_BYTES  # what is allowed ahead cannot eat the reserve


@dataclass(slots=True)
class Drive:
    """A data directory."""

    path: Path
    failed: bool = False


class VolumeSet:
    """All volumes of a node, over one or more drives."""

    def __init__(self, drives: Sequence[Path], disk: Disk, clock: Clock, entropy: Entropy, node: bytes) -> None:
        self.disk = disk
        self.drives = [Drive(path / "volumes") for path in drives]
        self._clock = clock
        self._entropy = entropy
        self._node = node
        self.volumes: dict[int, Volume] = {}
        self.unreadable: dict[Path, str] = {}
        self._active: dict[bool, Volume] = {}
        self._numbers = 0
        self._spares: list[memoryview] = []
        self._allowance = 0  # bytes that may be written before free space is asked for again
        self._open_all()

    def _open_all(self) -> None:
        for drive in self.drives:
            self.disk.makedirs(drive.path)
            for name in sorted(self.disk.listdir(drive.path)):
                if name.endswith(".tvol"):
                    self._open(drive.path / name)

    def _open(self, path: Path) -> None:
        with contextlib.suppress(ValueError):
            self._numbers = max(self._numbers, int(path.stem[1:], 16))
        handle = self.disk.open(path, write=True)
        size = self.disk.size(handle)
        try:
            superblock = decode_superblock(self.disk.pread(handle, SUPERBLOCK_BYTES, 0))
        except CorruptData as error:
            self.disk.close(handle)
            if size <= SUPERBLOCK_BYTES:  # cut by a crash while it was made: nothing was ever in it
                self.disk.remove(path)
            else:
                self.unreadable[path] = str(error)
            return
        self._numbers = max(self._numbers, superblock.number)
        self.volumes[superblock.number] = Volume(path, handle, superblock, end=size, sealed=True)

    def reopen_for_appending(self) -> None:
        """After recovery: let the youngest sound volumes that have room be written to again."""
        for volume in sorted(self.volumes.values(), key=lambda v: -v.number):
            if len(self._active) == 2:
                return
            if volume.sealed and not volume.failed and volume.end < VOLUME_BYTES_MAX // 2:
                volume.sealed = False
                self._active[bool(self._active)] = volume

    def _create(self) -> Volume:
        self._numbers += 1
        drive = self._roomiest()
        superblock = Superblock(self._numbers, self._clock.now_ns(), self._node, self._entropy.token(16))
        path = drive.path / f"v{self._numbers:08x}.tvol"
        handle = self.disk.create(path)
        self.disk.pwrite(handle, [superblock.encode()], 0)
        self.disk.sync_data(handle)
        self.disk.sync_dir(drive.path)
        volume = Volume(path, handle, superblock)
        self.volumes[volume.number] = volume
        return volume

    def _roomiest(self) -> Drive:
        sound = [drive for drive in self.drives if not drive.failed]
        if not sound:
            raise Retryable("no drive of this node takes writes")
        if len(sound) == 1:
            return sound[0]
        return max(sound, key=lambda drive: self.disk.free_bytes(drive.path)[0])

    def mark(self, volume: Volume) -> None:
        """Sync a volume and write into it that it was, so that a rebuild without index knows what had been."""
        if volume.failed or volume.open_slots or volume.unsettled or volume.marked_at == volume.end:
            return
        self.sync([volume])
        header = Header(Kind.MARK, b"mark", self._clock.now_ns(), floor=volume.floor)
        place = volume.place_of(volume.end)
        self._write(volume, encode_record(header, b"", b"", Footer(header.version), place), volume.end)
        volume.end += header.record_len
        self.sync([volume])
        volume.marked_at = volume.end

    def _with_room(self, length: int, *, large: bool) -> Volume:
        volume = self._active.get(large)
        if volume is not None and not volume.failed and volume.end + length <= VOLUME_BYTES_MAX:
            return volume
        if volume is not None:
            volume.sealed = True
            self.mark(volume)
        volume = self._active[large] = self._create()
        return volume

    def _allow(self, length: int) -> None:
        """Refuse bodies before the disk is full to the last byte. Asks the system once for many small ones."""
        if length > self._allowance:
            free = max(self.disk.free_bytes(drive.path)[0] for drive in self.drives if not drive.failed)
            self._allowance = min(free - RESERVE_BYTES, max(ALLOWANCE_BYTES, length))
            if length > self._allowance:
                raise NoSpace("the disk of this node is full")
        self._allowance -= length

    def append(self, header: Header, body: bytes | memoryview, table: bytes, footer: Footer) -> tuple[Volume, Place]:
        """A whole record in one write; `table` is its body's `hash_blocks`. Not synced. Raises NoSpace, Retryable."""
        length = header.record_len
        if header.body_len:  # what has none makes room or keeps order, and may use the reserve
            self._allow(length)
        volume = self._with_room(length, large=False)
        header = header.with_floor(volume.floor)
        position = volume.end
        self._write(volume, encode_record(header, body, table, footer, volume.place_of(position)), position)
        volume.end = position + length
        volume.unsettled[position] = header.version
        return volume, Place(volume.number, position, length)

    def begin(self, header: Header) -> Slot:
        """Reserve room for a body that arrives in pieces. Must end in `finish` or `void`."""
        self._allow(header.record_len)
        volume = self._with_room(header.record_len, large=True)
        header = header.with_floor(volume.floor)
        position = volume.end
        self._write(volume, [encode_header(header, *volume.place_of(position))], position)
        volume.end = position + header.record_len
        volume.unsettled[position] = header.version
        volume.open_slots[position] = None
        slot = Slot(self.disk, volume, position, header, self._spares)
        if header.body_len >= DIRECT_BODY_BYTES_MIN:
            if volume.direct is None:
                volume.direct = self.disk.open_direct(volume.path)
            slot.direct = volume.direct
        return slot

    def finish(self, slot: Slot, footer: Footer) -> None:
        """Write the footer: the record is whole, not synced."""
        assert slot.written == slot.header.body_len, "body is short"
        self._write_footer(slot, footer, bytes(slot.table))
        slot.volume.open_slots.pop(slot.position, None)

    def void(self, slot: Slot) -> None:
        """Give a reservation up: dead space."""
        with contextlib.suppress(OSError, NoSpace, Retryable):
            self._write_footer(slot, Footer(slot.header.version, void=True), b"")
        slot.volume.open_slots.pop(slot.position, None)
        self.settle(slot.volume, slot.position)

    def _write_footer(self, slot: Slot, footer: Footer, table: bytes) -> None:
        data = encode_footer(slot.header, footer, table, slot.volume.place_of(slot.position))
        self._write(slot.volume, [data], slot.position + slot.header.table_at)

    def _write(self, volume: Volume, parts: list[bytes | memoryview], position: int) -> None:
        if volume.failed:
            raise Retryable("a volume of this node has failed; send it again")
        try:
            self.disk.pwrite(volume.handle, [part for part in parts if part], position)
        except NoSpace:
            raise NoSpace("the disk of this node is full") from None
        except OSError as error:
            volume.failed = volume.sealed = True
            raise Retryable(f"writing a volume failed: {error.strerror}") from error

    @staticmethod
    def settle(volume: Volume, position: int) -> None:
        """The index says now what the record says."""
        volume.unsettled.pop(position, None)

    def sync(self, volumes: Sequence[Volume]) -> None:
        """Make what has been written so far survive a power cut. Raises Retryable; then nothing may be acknowledged."""
        for volume in volumes:
            floor = next(iter(volume.open_slots), volume.end)
            try:
                self.disk.sync_data(volume.handle)
            except OSError as error:
                volume.failed = volume.sealed = True
                raise Retryable(f"syncing a volume failed: {error.strerror}") from error
            volume.floor = max(volume.floor, floor)

    def read(self, place: Place, start: int, count: int) -> bytes:
        """Bytes [start, start+count) of a record, unverified. Raises CorruptData when they are not all there."""
        volume = self.volumes.get(place.volume)
        if volume is None:
            raise CorruptData(f"volume {place.volume} is not there")
        try:
            data = self.disk.pread(volume.handle, count, place.position + start)
        except OSError as error:
            raise CorruptData(f"volume {place.volume} cannot be read: {error.strerror}") from error
        if len(data) != count:
            raise CorruptData(f"volume {place.volume} ends too early")
        return data

    def pin(self, number: int) -> Callable[[], None]:
        """Keep a volume's file open until the returned function is called, even if it is removed meanwhile."""
        volume = self.volumes.get(number)
        if volume is None:
            raise CorruptData(f"volume {number} is not there")
        volume.pins += 1

        def unpin() -> None:
            volume.pins -= 1
            self._bury(volume)

        return unpin

    def seal(self, volume: Volume) -> None:
        """No more records go here."""
        volume.sealed = True
        for lane, active in list(self._active.items()):
            if active is volume:
                del self._active[lane]

    def remove(self, volume: Volume) -> None:
        """Delete a volume's file for good; readers that have it pinned keep it until they are through."""
        self.seal(volume)
        volume.condemned = True
        self.disk.remove(volume.path)
        self.disk.sync_dir(volume.path.parent)
        self._bury(volume)

    def _bury(self, volume: Volume) -> None:
        if volume.condemned and volume.pins == 0 and self.volumes.pop(volume.number, None) is not None:
            volume.close(self.disk)

    def oldest_unsettled(self) -> int | None:
        """Least version of a record that is not in the index yet; None: all are."""
        return min((min(v.unsettled.values()) for v in self.volumes.values() if v.unsettled), default=None)

    def stop(self) -> None:
        """Mark what may be marked. A disk that fails here has said so before, or will at the next start."""
        for volume in self._active.values():
            with contextlib.suppress(NoSpace, Retryable):
                self.mark(volume)

    def close(self) -> None:
        for volume in self.volumes.values():
            volume.close(self.disk)
        self.volumes.clear()
