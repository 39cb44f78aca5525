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
import errno
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from qss.errors import CorruptData, NoSpace, Refused, Retryable
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
from qss.host.disk import Handle
from qss.limits import GIB, MIB
from qss.trove.drives import Drive, DriveHealth, Space
from qss.trove.durable import make_directory
from qss.trove.rows import Place
from qss.trove.slots import DIRECT_BODY_BYTES_MIN, Slot, Volume

VOLUME_BYTES_MAX: Final = 8 * GIB
SMALL_BODY_BYTES_MAX: Final = 1 * MIB
"""Bodies up to this are written in one go; larger ones have volumes of their own, so that syncing a small object does
not wait for the bytes of a big one."""


class VolumeSet:
    """All volumes of a node, over one or more drives."""

    def __init__(self, drives: Sequence[Drive], disk: Disk, clock: Clock, entropy: Entropy, node: bytes) -> None:
        """`drives`: the first one holds the index; missing ones have failed. Raises Refused."""
        self.disk = disk
        self.drives = list(drives)
        self._space = Space(self.drives, disk)
        self._clock = clock
        self._entropy = entropy
        self._node = node
        self.volumes: dict[int, Volume] = {}
        self.unreadable: dict[Path, str] = {}
        self._active: dict[bool, Volume] = {}
        self._numbers = 0
        self._spares: list[memoryview] = []
        self._open_all()

    @property
    def absent(self) -> bool:
        """Whether a drive is missing or has failed: what is not found may be there."""
        return not all(drive.readable for drive in self.drives)

    @property
    def may_return(self) -> bool:
        """Whether volumes that cannot be read now may be read later, and bring records older than what is here: what
        was deleted must be remembered."""
        return self.absent or bool(self.unreadable)

    def _open_all(self) -> None:
        for drive in self.drives:
            if not drive.readable:
                continue
            try:
                make_directory(self.disk, drive.volumes)
                for name in sorted(self.disk.listdir(drive.volumes)):
                    if name.endswith(".tvol"):
                        self._open(drive, drive.volumes / name)
            except OSError as error:
                raise Refused(f"{drive.path} cannot be used: {error.strerror}; leave this drive out") from error

    def _open(self, drive: Drive, path: Path) -> None:
        with contextlib.suppress(ValueError):
            self._numbers = max(self._numbers, int(path.stem[1:], 16))
        try:
            handle = self.disk.open(path, write=True)
        except OSError as error:
            drive.note(error, writing=True)
            handle = self.disk.open(path)
        size = self.disk.size(handle)
        try:
            superblock = decode_superblock(self._superblock(drive, handle))
        except CorruptData as error:
            self.disk.close(handle)
            if size <= SUPERBLOCK_BYTES and drive.writable:  # cut by a crash while it was made: nothing was ever in it
                self.disk.remove(path)
            else:
                self.unreadable[path] = str(error)
            return
        self._numbers = max(self._numbers, superblock.number)
        self.volumes[superblock.number] = Volume(path, handle, superblock, drive, end=size, sealed=True)

    def _superblock(self, drive: Drive, handle: Handle) -> bytes:
        try:
            return self.disk.pread(handle, SUPERBLOCK_BYTES, 0)
        except OSError as error:
            drive.note(error, writing=False)
            raise CorruptData(f"its superblock cannot be read: {error.strerror}") from error

    def number_after(self, number: int) -> None:
        """Volumes made from now on have higher numbers than this one."""
        self._numbers = max(self._numbers, number)

    def reopen_for_appending(self, damaged: Collection[int]) -> None:
        """After recovery: let the youngest sound volumes that have room be written to again. `damaged`: numbers of
        those that hold damage; nothing is added to them."""
        for volume in sorted(self.volumes.values(), key=lambda v: -v.number):
            if len(self._active) == 2:
                return
            if volume.writable and volume.number not in damaged and volume.end < VOLUME_BYTES_MAX // 2:
                volume.sealed = False
                self._active[bool(self._active)] = volume

    def _create(self, length: int, *, body: bool) -> Volume:
        """A new volume with room for a record. Raises NoSpace, Retryable when no drive takes one."""
        while True:
            drive = self._space.choose(length, body=body)
            try:
                return self._create_on(drive)
            except OSError as error:
                drive.note(error, writing=True)  # three in a row, and it is asked no more

    def _create_on(self, drive: Drive) -> Volume:
        self._numbers += 1
        superblock = Superblock(self._numbers, self._clock.now_ns(), self._node, self._entropy.token(16))
        path = drive.volumes / f"v{self._numbers:08x}.tvol"
        handle = self.disk.create(path)
        try:
            self.disk.pwrite(handle, [superblock.encode()], 0)
            self.disk.sync_data(handle)
            self.disk.sync_dir(drive.volumes)
        except BaseException:
            self.disk.close(handle)
            with contextlib.suppress(OSError):
                self.disk.remove(path)
            raise
        drive.wrote()
        volume = Volume(path, handle, superblock, drive)
        self.volumes[volume.number] = volume
        return volume

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

    def _with_room(self, length: int, *, large: bool, body: bool) -> Volume:
        """The volume the next record goes to. Raises NoSpace, Retryable."""
        volume = self._active.get(large)
        if volume is not None and volume.writable and volume.end + length <= VOLUME_BYTES_MAX:
            drive = volume.drive
            sound = drive.health is DriveHealth.OK or not self._space.better(drive)
            if sound and (not body or self._space.allow(drive, length)):
                return volume
        fresh = self._create(length, body=body)
        if volume is not None:
            volume.sealed = True
            with contextlib.suppress(NoSpace, Retryable):
                self.mark(volume)
        self._active[large] = fresh
        return fresh

    def append(self, header: Header, body: bytes | memoryview, table: bytes, footer: Footer) -> tuple[Volume, Place]:
        """A whole record in one write; `table` is its body's `hash_blocks`. Not synced. Raises NoSpace, Retryable."""
        length = header.record_len
        body_counts = header.body_len > 0  # what has none makes room or keeps order, and may use the reserve
        volume = self._with_room(length, large=False, body=body_counts)
        header = header.with_floor(volume.floor)
        position = volume.end
        self._write(volume, encode_record(header, body, table, footer, volume.place_of(position)), position)
        volume.end = position + length
        volume.unsettled[position] = header.version
        return volume, Place(volume.number, position, length)

    def begin(self, header: Header) -> Slot:
        """Reserve room for a body that arrives in pieces. Must end in `finish` or `void`."""
        volume = self._with_room(header.record_len, large=True, body=True)
        header = header.with_floor(volume.floor)
        position = volume.end
        self._write(volume, [encode_header(header, *volume.place_of(position))], position)
        volume.open_slots[position] = None  # before the end moves: see `Volume.whole_to`
        volume.end = position + header.record_len
        volume.unsettled[position] = header.version
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
            if position >= volume.end:  # half a record must not stand behind the next one
                with contextlib.suppress(OSError):
                    self.disk.truncate(volume.handle, volume.end)
            raise NoSpace("the disk of this node is full") from None
        except OSError as error:
            volume.fail(error)
            raise Retryable(f"writing a volume failed: {error.strerror}") from error

    @staticmethod
    def settle(volume: Volume, position: int) -> None:
        """The index says now what the record says."""
        volume.unsettled.pop(position, None)

    def sync(self, volumes: Sequence[Volume]) -> None:
        """Make what has been written so far survive a power cut. Tries all; those that cannot be have `failed` then,
        and Retryable is raised: nothing in them may be acknowledged."""
        problem: OSError | None = None
        for volume in volumes:
            floor = volume.whole_to
            try:
                self.disk.sync_data(volume.handle)
            except OSError as error:
                volume.fail(error)
                problem = error
                continue
            volume.drive.wrote()
            volume.floor = max(volume.floor, floor)
        if problem is not None:
            raise Retryable(f"syncing a volume failed: {problem.strerror}") from problem

    def read(self, place: Place, start: int, count: int) -> bytes:
        """Bytes [start, start+count) of a record, unverified. Raises CorruptData when they are not all there,
        Retryable when the drive they are on is not."""
        volume = self.there(place.volume)
        try:
            data = self.disk.pread(volume.handle, count, place.position + start)
        except OSError as error:
            volume.drive.note(error, writing=False)
            self.there(place.volume)
            raise CorruptData(f"volume {place.volume} cannot be read: {error.strerror}") from error
        if len(data) != count:
            raise CorruptData(f"volume {place.volume} ends too early")
        return data

    def there(self, number: int) -> Volume:
        """Raises Retryable when it is, or may be, on a drive that cannot be read now; else CorruptData."""
        volume = self.volumes.get(number)
        if volume is not None and volume.drive.readable:
            return volume
        if volume is not None or self.absent:
            raise Retryable("the drive that holds this has failed or is missing")
        raise CorruptData(f"volume {number} is not there")

    def touch(self, drive: Drive) -> None:
        """Read something of a drive through an open handle. Raises OSError; FileNotFoundError when the drive was not
        there at the start, so that nothing of it is open. May run in a pool."""
        mine = [volume for volume in list(self.volumes.values()) if volume.drive is drive]
        if not mine and not drive.readable:
            raise FileNotFoundError(errno.ENOENT, "it was not there when the node started")
        if mine:
            self.disk.pread(mine[0].handle, SUPERBLOCK_BYTES, 0)

    def pin(self, number: int) -> Callable[[], None]:
        """Keep a volume's file open until the returned function is called, even if it is removed meanwhile."""
        volume = self.there(number)
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

    def forget(self, volume: Volume, target: Path) -> None:
        """Move a volume's file out of the node's sight; it is not closed before readers that have it pinned are."""
        self.seal(volume)
        volume.condemned = True
        self.disk.rename(volume.path, target)
        self.disk.sync_dir(target.parent)
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
