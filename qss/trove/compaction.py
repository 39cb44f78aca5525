"""Give the space of dead records back: move what lives out of a volume, then delete the volume.

  1. each live record is read, verified and written to the active volume    crash: both are there, the same version
  2. synced, then the index points to the copy                               crash: the old one is dead
  3. its row says that it is empty, checkpoint, the file is deleted           crash before: done again; after: the row
                                                                              of a volume that is not there goes
A record that does not verify stays where it is, and so does its volume: compaction never loses what might be repaired.
The volume is left alone until its damage is gone (the object replaced or deleted) or `trove repair` sets it aside.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from qss.errors import CorruptData
from qss.formats.volume import SUPERBLOCK_BYTES, Footer, Kind, verify_blocks
from qss.limits import MIB
from qss.trove.engine import Engine
from qss.trove.facts import OBJECTS, VERSION, Fact, split_key, version_key
from qss.trove.keyversions import KeyVersions
from qss.trove.pace import Pace
from qss.trove.rows import Place, decode_named, decode_part
from qss.trove.scan import (
    BadFooter,
    Found,
    Unfinished,
    Unreadable,
    Whole,
    end_of,
    fact_of,
    next_few,
    position_of,
    scan,
)
from qss.trove.slots import PIECE_BYTES, Slot, Volume
from qss.trove.tables import Tables
from qss.trove.volumes import SMALL_BODY_BYTES_MAX

log = logging.getLogger(__name__)

COMPACT_BYTES_MIN: Final = 16 * MIB
"""Below this a volume is not worth the trouble."""
_ENDS: Final = (Kind.TOMBSTONE, Kind.VERSION_GONE, Kind.BUCKET_GONE, Kind.UPLOAD_GONE)


def candidate(engine: Engine, garbage: float, least_bytes: int = COMPACT_BYTES_MIN) -> Volume | None:
    """The volume with the largest share of dead bytes, if that is more than `garbage`."""
    best: tuple[float, Volume] | None = None
    with engine.index.read() as tables:
        damaged = tables.damaged_volumes()  # kept: never is lost what might be repaired
    for volume in engine.volumes.volumes.values():
        used = volume.end - SUPERBLOCK_BYTES
        if used < max(least_bytes, 1) or volume.unsettled or volume.condemned or not volume.writable:
            continue
        if volume.emptying or volume.number in damaged:
            continue
        dead = 1 - _live_bytes(engine, volume) / used
        if dead > garbage and (best is None or dead > best[0]):
            best = dead, volume
    return None if best is None else best[1]


def _live_bytes(engine: Engine, volume: Volume) -> int:
    row = engine.index.totals.volumes.get(volume.number)
    return row.live if row else 0


async def compact_one(
    engine: Engine, garbage: float, least_bytes: int = COMPACT_BYTES_MIN, pace: Pace | None = None
) -> int:
    """Compact the worst volume, if one is bad enough. Returns the bytes given back."""
    volume = candidate(engine, garbage, least_bytes)
    return 0 if volume is None else await compact(engine, volume, pace)


async def compact(engine: Engine, volume: Volume, pace: Pace | None = None) -> int:
    """Empty one volume and delete it. Returns the bytes given back; 0 when damage keeps it."""
    volume.emptying = True
    try:
        clean, moved = await move_out(engine, volume, pace or Pace(None))
        if not clean:
            log.warning("volume %d holds damaged records and is kept", volume.number)
            return 0
        with engine.index.write() as tables:  # deletions that were moved count in it still
            tables.live(Place(volume.number, 0, _live_bytes(engine, volume)), -1)
        await engine.checkpoint()
        # The file first: a volume that came back without its row would be replayed, and with it what was deleted.
        engine.volumes.remove(volume)
        with engine.index.write() as tables:
            tables.forget_volume(volume.number)
        return volume.end - moved
    finally:
        volume.emptying = False


async def move_out(engine: Engine, volume: Volume, pace: Pace) -> tuple[bool, int]:
    """Move what lives and verifies out of a volume, durably whatever the node's SyncMode: it may have been on the disk
    for long. Returns whether nothing had to stay, and the bytes moved."""
    engine.volumes.seal(volume)
    while volume.unsettled:
        await engine.committer.through()
        await asyncio.sleep(0.05)
    clean = True
    moved = 0
    targets: set[Volume] = set()
    records = scan(engine.volumes.disk, volume)
    while batch := await engine.in_pool(next_few, records):
        for found in batch:
            stays, target = await _move(engine, volume, found)
            clean = clean and not stays
            length = 0
            if target is not None:
                targets.add(target)
                length = end_of(found) - position_of(found)
                moved += length
            await pace.spent(2 * length)  # read and written; also when nothing is to be waited for, requests go first
    await engine.in_pool(engine.volumes.sync, list(targets))
    return clean, moved


async def _move(engine: Engine, volume: Volume, found: Found) -> tuple[bool, Volume | None]:
    """Move one record if it lives. Returns whether it must stay, and where it went."""
    if not isinstance(found, Whole):
        return quarantine(engine, volume, found, "compaction"), None
    if found.footer.void or not lives(engine, volume, found):
        return False, None
    try:
        copied = await _copy(engine, volume, found)
    except CorruptData as error:
        note_damage(engine, found.place, found.header.key, str(error), "compaction")
        return True, None
    if copied is None:
        return False, None
    await engine.committer.submit(*copied)
    return False, copied[0]


def quarantine(engine: Engine, volume: Volume, found: Unfinished | BadFooter | Unreadable, by: str) -> bool:
    """Note what does not verify and may be something that counts: what cannot be told is kept. False: it is nothing."""
    if isinstance(found, Unfinished):
        return False
    if isinstance(found, Unreadable):
        place = Place(volume.number, found.position, found.stop - found.position)
        note_damage(engine, place, b"", "no record is legible here", by)
        return True
    footer = Footer(found.header.version, numbered=found.header.numbered)
    if _of_some_version(engine, found) or lives(engine, volume, Whole(found.place, found.header, footer, b"")):
        note_damage(engine, found.place, found.header.key, "its end does not verify", by)
        return True
    return False


def _of_some_version(engine: Engine, found: BadFooter) -> bool:
    """Whether a version of its key lies here. Which one, only the footer knows: a long body is begun earlier."""
    if found.header.kind not in OBJECTS:
        return False
    bucket, key = split_key(found.header.key)
    with engine.index.read() as tables:
        number = tables.bucket_id(found.header.tenant, bucket)
        versions = None if number is None else KeyVersions(tables, number, key)
        return versions is not None and any(row.place == found.place for row in versions.all())


def note_damage(engine: Engine, place: Place, key: bytes, what: str, by: str) -> None:
    """Unless it is known already."""
    with engine.index.read() as tables:
        if tables.is_damaged(place.volume, place.position):
            return
    note = {"length": place.length, "key": key.decode("utf-8", "replace"), "what": what, "by": by}
    with engine.index.write() as tables:
        tables.add_damage(place.volume, place.position, note)


async def _copy(engine: Engine, volume: Volume, found: Whole) -> tuple[Volume, Fact] | None:
    """Write a record again, from bytes that are verified as they are read. None: it was deleted meanwhile. Raises
    CorruptData."""
    header = replace(found.header, version=found.footer.version, numbered=found.footer.numbered)
    fact = await engine.in_pool(fact_of, engine.volumes.disk, volume, found)
    if header.body_len <= SMALL_BODY_BYTES_MAX:
        body = await engine.in_pool(_body, engine, found)
        if not lives(engine, volume, found):  # from here to the append nothing else runs
            return None
        target, place = engine.volumes.append(header, body, found.table, found.footer)
        return target, replace(fact, place=place)
    slot = engine.volumes.begin(header)  # deleted from here on: its grave is kept as long as this is not settled
    try:
        await engine.in_pool(_copy_body, engine, found, slot)
        if bytes(slot.table) != found.table:
            raise CorruptData("does not verify")
        engine.volumes.finish(slot, found.footer)
    except BaseException:
        engine.volumes.void(slot)
        raise
    return slot.volume, replace(fact, place=slot.place)


def _body(engine: Engine, found: Whole) -> bytes:
    body = engine.volumes.read(found.place, found.header.body_at, found.header.body_len)
    if not verify_blocks(body, found.table):
        raise CorruptData("does not verify")
    return body


def _copy_body(engine: Engine, found: Whole, slot: Slot) -> None:
    while slot.written < slot.header.body_len:
        count = min(PIECE_BYTES, slot.header.body_len - slot.written)
        piece = slot.piece()
        piece.take(memoryview(engine.volumes.read(found.place, found.header.body_at + slot.written, count)))
        slot.write(piece)


def lives(engine: Engine, volume: Volume, found: Whole) -> bool:
    """Whether a record counts: the index names it, or it says a deletion that is needed."""
    with engine.index.read() as tables:
        return _names(tables, found) or _needed_tombstone(engine, volume, found)


def _names(tables: Tables, found: Whole) -> bool:
    """Whether the index points to this very record."""
    header = found.header
    match header.kind:
        case Kind.OBJECT | Kind.COMPOSITE | Kind.MARKER:
            bucket, key = split_key(header.key)
            number = tables.bucket_id(header.tenant, bucket)
            one = None if number is None else KeyVersions(tables, number, key).find(found.footer.version)
            return one is not None and one.place == found.place
        case Kind.PART:
            data = tables.get(tables.dbs.parts, header.key)
            return data is not None and decode_part(data).place == found.place
        case Kind.UPLOAD:
            data = tables.get(tables.dbs.uploads, header.meta[:16])
            return data is not None and decode_named(data).place == found.place
        case Kind.BUCKET:
            row = tables.bucket(header.tenant, header.key)
            return row is not None and row.place == found.place
        case Kind.AMEND:
            (of,) = VERSION.unpack_from(header.meta)
            amend = tables.amend(version_key(header.tenant, header.key, of, numbered=found.footer.numbered))
            return amend is not None and amend.place == found.place
        case Kind.DOCUMENT:
            row = tables.document(header.tenant, header.key)
            return row is not None and row.place == found.place
        case _:
            return False


def _needed_tombstone(engine: Engine, volume: Volume, found: Whole) -> bool:
    """A deletion is kept as long as another volume may hold an older record of the same key."""
    if found.header.kind not in _ENDS:
        return False
    if engine.volumes.may_return:
        return True
    others = (row for number, row in engine.index.totals.volumes.items() if number != volume.number)
    return any(row.oldest < found.footer.version for row in others)
