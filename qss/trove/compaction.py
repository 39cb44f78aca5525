"""Give the space of dead records back: move what lives out of a volume, then delete the volume.

  1. each live record is read, verified and written to the active volume    crash: both are there, the same version
  2. synced, then the index points to the copy                               crash: the old one is dead
  3. when nothing in the index names the volume: checkpoint, delete the file  crash before: done again
A record that does not verify stays where it is, and so does its volume: compaction never loses what might be repaired.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from qss.formats.volume import SUPERBLOCK_BYTES, Kind
from qss.limits import MIB
from qss.trove.engine import Engine
from qss.trove.facts import VERSION, Fact, split_key, version_key
from qss.trove.index import Tables
from qss.trove.keyversions import KeyVersions
from qss.trove.rows import decode_named, decode_part
from qss.trove.scan import Found, Unreadable, Whole, body_verifies, fact_of, scan
from qss.trove.slots import PIECE_BYTES, Slot, Volume
from qss.trove.volumes import SMALL_BODY_BYTES_MAX

log = logging.getLogger(__name__)

COMPACT_BYTES_MIN: Final = 16 * MIB
"""Below this a volume is not worth the trouble."""
_ENDS: Final = (Kind.TOMBSTONE, Kind.VERSION_GONE, Kind.BUCKET_GONE, Kind.UPLOAD_GONE)


def candidate(engine: Engine, garbage: float, least_bytes: int = COMPACT_BYTES_MIN) -> Volume | None:
    """The volume with the largest share of dead bytes, if that is more than `garbage`."""
    best: tuple[float, Volume] | None = None
    for volume in engine.volumes.volumes.values():
        used = volume.end - SUPERBLOCK_BYTES
        if used < max(least_bytes, 1) or volume.unsettled or volume.failed or volume.condemned:
            continue
        row = engine.index.totals.volumes.get(volume.number)
        dead = 1 - (row.live if row else 0) / used
        if dead > garbage and (best is None or dead > best[0]):
            best = dead, volume
    return None if best is None else best[1]


async def compact_one(engine: Engine, garbage: float, least_bytes: int = COMPACT_BYTES_MIN) -> int:
    """Compact the worst volume, if one is bad enough. Returns the bytes given back."""
    volume = candidate(engine, garbage, least_bytes)
    return 0 if volume is None else await compact(engine, volume)


async def compact(engine: Engine, volume: Volume) -> int:
    """Empty one volume and delete it. Returns the bytes given back; 0 when damage keeps it."""
    engine.volumes.seal(volume)
    while volume.unsettled:
        await engine.committer.idle()
        await asyncio.sleep(0.05)
    clean = True
    moved = 0
    for found in scan(engine.volumes.disk, volume):
        kept, length = await _move(engine, volume, found)
        clean = clean and not kept
        moved += length
        await asyncio.sleep(0)  # requests go first
    if not clean:
        log.warning("volume %d holds damaged records and is kept", volume.number)
        return 0
    await engine.checkpoint()
    # The file first: a volume that came back without its row would be replayed, and with it what was deleted.
    engine.volumes.remove(volume)
    with engine.index.write() as tables:
        tables.forget_volume(volume.number)
    return volume.end - moved


async def _move(engine: Engine, volume: Volume, found: Found) -> tuple[bool, int]:
    """Move one record if it lives. Returns whether it must stay, and the bytes moved."""
    if not isinstance(found, Whole):
        position = found.position if isinstance(found, Unreadable) else found.place.position
        with engine.index.read() as tables:
            return tables.is_damaged(volume.number, position), 0
    if found.footer.void or not _lives(engine, volume, found):
        return False, 0
    if not await engine.in_pool(body_verifies, engine.volumes.disk, volume, found):
        with engine.index.write() as tables:
            tables.add_damage(volume.number, found.place.position, {"what": "does not verify", "by": "compaction"})
        return True, 0
    fact = fact_of(engine.volumes.disk, volume, found)
    if not _lives(engine, volume, found):  # deleted meanwhile; from here to the append nothing else runs
        return False, 0
    target, moved = await _copy(engine, volume, found, fact)
    await engine.committer.submit(target, moved)
    return False, found.place.length


async def _copy(engine: Engine, volume: Volume, found: Whole, fact: Fact) -> tuple[Volume, Fact]:
    header = replace(found.header, version=found.footer.version)
    disk, body_at = engine.volumes.disk, found.place.position + found.header.body_at
    if header.body_len <= SMALL_BODY_BYTES_MAX:
        body = disk.pread(volume.handle, header.body_len, body_at)
        target, place = engine.volumes.append(header, body, found.table, found.footer)
        return target, replace(fact, place=place)
    slot = engine.volumes.begin(header)
    try:
        await engine.in_pool(_copy_body, volume, slot, body_at)
        if bytes(slot.table) != found.table:
            raise AssertionError("bytes changed between verifying and copying")
        engine.volumes.finish(slot, found.footer)
    except BaseException:
        engine.volumes.void(slot)
        raise
    return slot.volume, replace(fact, place=slot.place)


def _copy_body(volume: Volume, slot: Slot, body_at: int) -> None:
    while slot.written < slot.header.body_len:
        count = min(PIECE_BYTES, slot.header.body_len - slot.written)
        piece = slot.piece()
        piece.take(memoryview(slot.disk.pread(volume.handle, count, body_at + slot.written)))
        slot.write(piece)


def _lives(engine: Engine, volume: Volume, found: Whole) -> bool:
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
    others = (row for number, row in engine.index.totals.volumes.items() if number != volume.number)
    return any(row.oldest < found.footer.version for row in others)
