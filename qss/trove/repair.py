"""Repair of a stopped node: keep every byte that verifies, give up the rest by name.

  1. scrub everything                                     afterwards the damage list is complete
  2. each volume with damage: what lives and verifies is   crash: both are there, the same version
     written to another volume and synced
  3. the volume's file is set aside, DIR/set-aside/        crash before: done again
  4. what the index still knows of lost records without    crash: done again, the same version
     bytes is written again (qss/trove/restate.py)
  5. versions whose bytes are in no volume get a           crash before: found again, by 5
     tombstone and are listed; so are parts of uploads
What is set aside is never looked at again by the node, and never deleted by it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from qss.errors import CorruptData, Refused
from qss.formats.volume import (
    HEADER_BYTES,
    KEY_BYTES_MAX,
    META_BYTES_MAX,
    SUPERBLOCK_BYTES,
    Kind,
    Superblock,
    decode_header,
    decode_superblock,
)
from qss.host import Disk
from qss.s3.backend import Bucket, Versioning
from qss.s3.versions import version_text
from qss.trove.compaction import move_out
from qss.trove.durable import make_directory
from qss.trove.engine import Draft, Engine
from qss.trove.facts import VERSION, parts_of
from qss.trove.identity import SET_ASIDE
from qss.trove.keyversions import scan_versions
from qss.trove.meta import encode_bucket
from qss.trove.node import Node
from qss.trove.pace import Pace
from qss.trove.places import walk_parts, walk_versions
from qss.trove.restate import lost_statements, restate
from qss.trove.rows import TENANT, ObjectRow, Place
from qss.trove.tables import Tables

_FIELDS_BYTES: Final = 56
_CHECK_BYTES: Final = 16


@dataclass(slots=True)
class Outcome:
    """What a repair has done, or would do."""

    lost_objects: int = 0
    lost_bytes: int = 0
    lost_uploads: int = 0
    lost_settings: int = 0  # buckets known only by what is in them
    rewritten: int = 0  # records that say something and hold nothing
    set_aside: list[str] = field(default_factory=list)
    moved_bytes: int = 0

    @property
    def sound(self) -> bool:
        return not (self.lost_objects or self.lost_uploads or self.lost_settings or self.set_aside or self.rewritten)


async def repair(node: Node, say: Callable[[dict[str, Any]], None], *, dry_run: bool) -> Outcome:
    """Run all steps. `say` gets what is lost, one by one. Raises QssError when the disk does not play along."""
    outcome = Outcome()
    await node.scrubber.round()
    with node.engine.index.read() as tables:
        damaged = tables.damaged_volumes()
    if dry_run:
        outcome.set_aside = [f"v{number:08x}.tvol" for number in sorted(damaged)]
        outcome.set_aside += [path.name for path in node.engine.volumes.unreadable]
    else:
        try:
            await _empty(node, damaged, outcome)
        except OSError as error:
            raise Refused(f"a damaged volume cannot be set aside: {error.strerror}; see to its drive first") from error
    await _give_up(node, say, outcome, dry_run=dry_run)
    await node.engine.checkpoint()
    return outcome


async def _empty(node: Node, damaged: set[int], outcome: Outcome) -> None:
    """Steps 2 and 3."""
    engine = node.engine
    for number in sorted(damaged & engine.volumes.volumes.keys()):
        volume = engine.volumes.volumes[number]
        _, moved = await move_out(engine, volume, Pace(None))
        outcome.moved_bytes += moved
        await engine.checkpoint()
        target = _aside(engine.volumes.disk, volume.path)
        engine.volumes.forget(volume, target)
        with engine.index.write() as tables:
            tables.forget_volume(number)
        outcome.set_aside.append(target.name)
    for path in list(engine.volumes.unreadable):
        target = _aside(engine.volumes.disk, path)
        engine.volumes.disk.rename(path, target)
        del engine.volumes.unreadable[path]
        outcome.set_aside.append(target.name)
    for number in set(engine.index.totals.volumes) - engine.volumes.volumes.keys():
        with engine.index.write() as tables:
            tables.forget_volume(number)


def _aside(disk: Disk, path: Path) -> Path:
    folder = path.parent.parent / SET_ASIDE
    make_directory(disk, folder)
    return folder / path.name


async def _give_up(node: Node, say: Callable[[dict[str, Any]], None], outcome: Outcome, *, dry_run: bool) -> None:
    """Steps 4 and 5: first what need not be given up, since the index still knows what the record said."""
    engine = node.engine
    statements = [each async for each in lost_statements(engine, partial(_is_lost, engine))]
    outcome.rewritten = len(statements)
    for statement in statements if not dry_run else ():
        await restate(engine, statement)
    for bucket, versioned in _nameless(engine):
        outcome.lost_settings += 1
        state = Versioning.ENABLED if versioned else None
        say({"lost": "settings", "bucket": bucket.decode("utf-8", "replace"), "versioning": state and state.value})
        if not dry_run:
            await engine.note(Draft(Kind.BUCKET, bucket, encode_bucket(Bucket(bucket.decode(), 0, versioning=state))))
    async for bucket, key, row in _lost(engine):
        outcome.lost_objects += 1
        outcome.lost_bytes += row.size
        name = {"bucket": bucket.decode("utf-8", "replace"), "key": key.decode("utf-8", "replace")}
        version = {"version": version_text(row.version)} if row.numbered else {}
        say({"lost": "object"} | name | version | {"bytes": row.size})
        if not dry_run:
            await engine.note(_end_of(bucket + b"/" + key, row))
    gone: set[bytes] = set()
    async for upload, number, place in walk_parts(engine.index):
        with engine.index.read() as tables:
            open_still = tables.composite(upload) is None and _is_lost(engine, tables, place)
        if open_still:
            say({"lost": "part", "upload": upload.hex(), "number": number})
            gone.add(upload)
    outcome.lost_uploads = len(gone)
    for upload in gone if not dry_run else ():
        await engine.note(Draft(Kind.UPLOAD_GONE, upload))


def _nameless(engine: Engine) -> list[tuple[bytes, bool]]:
    """Buckets whose record neither the volumes nor the index have: objects speak of them. With each, whether it had
    versioning, as its objects say."""
    with engine.index.read() as tables:
        rows = [row for row in tables.buckets(TENANT) if not row[1].place.length and not tables.is_bare(row[1].number)]
        return [(name, any(row.numbered for _, row in scan_versions(tables, one.number, b""))) for name, one in rows]


def _end_of(full: bytes, row: ObjectRow) -> Draft:
    """The deletion of one version, whatever holds it: its bytes are gone. The one before it is the newest then."""
    if row.numbered:
        return Draft(Kind.VERSION_GONE, full, VERSION.pack(row.version))
    return Draft(Kind.TOMBSTONE, full)


async def _lost(engine: Engine) -> AsyncIterator[tuple[bytes, bytes, ObjectRow]]:
    """Versions of which a record does not verify or is in no volume; not delete markers."""
    async for bucket, key, row in walk_versions(engine.index):
        if row.marker:
            continue
        with engine.index.read() as tables:
            places = [row.place]
            if row.parts:
                owner = tables.owner_of(row.place)
                parts = [] if owner is None else [part.place for _, part in parts_of(tables, owner)]
                places += parts
                if len(parts) != row.parts:
                    places = []
            lost = not places or any(_is_lost(engine, tables, place) for place in places)
        if lost or row.damaged:
            yield bucket, key, row


def _is_lost(engine: Engine, tables: Tables, place: Place) -> bool:
    volume = engine.volumes.volumes.get(place.volume)
    return volume is None or volume.condemned or tables.is_damaged(place.volume, place.position)


def mend_superblocks(disk: Disk, data: tuple[Path, ...]) -> list[str]:
    """Write superblocks again in which one bit has turned, or of which only the check is damaged. Before a node opens
    the directories. Returns the names of the volumes."""
    mended: list[str] = []
    for folder in (path / "volumes" for path in data):
        for name in sorted(disk.listdir(folder)) if disk.exists(folder) else ():
            if not name.endswith(".tvol"):
                continue
            try:
                if _mend(disk, folder / name):
                    mended.append(name)
            except OSError as error:
                raise Refused(f"{folder / name} cannot be mended: {error.strerror}; see to its drive first") from error
    return mended


def _mend(disk: Disk, path: Path) -> bool:
    handle = disk.open(path)
    try:
        found = mended_superblock(
            disk.pread(handle, SUPERBLOCK_BYTES + HEADER_BYTES + KEY_BYTES_MAX + META_BYTES_MAX, 0)
        )
    finally:
        disk.close(handle)
    if found is None:
        return False
    handle = disk.open(path, write=True)  # a drive that takes no writes is left alone unless it must be written
    try:
        disk.pwrite(handle, [found.encode()], 0)
        disk.sync_data(handle)
    finally:
        disk.close(handle)
    return True


def mended_superblock(content: bytes) -> Superblock | None:
    """What a damaged superblock said, if that can be told for sure; None also for one that is not damaged.

    `content` is the beginning of a volume: the superblock, and the header of the first record if there is one.
    """
    if len(content) < SUPERBLOCK_BYTES:
        return None
    fields, check = content[:_FIELDS_BYTES], content[_FIELDS_BYTES : _FIELDS_BYTES + _CHECK_BYTES]
    try:
        decode_superblock(content)
    except CorruptData:
        pass
    else:
        return None
    for bit in range(8 * _FIELDS_BYTES):
        tried = bytearray(fields)
        tried[bit // 8] ^= 1 << bit % 8
        try:
            return decode_superblock(bytes(tried) + check)
        except CorruptData:
            continue
    return _by_first_record(content)


def _by_first_record(content: bytes) -> Superblock | None:
    """The check is damaged: the fields are believed if the first record is bound to what they make."""
    fields = content[:_FIELDS_BYTES]
    try:
        number = int.from_bytes(fields[12:16], "little")
        found = Superblock(number, int.from_bytes(fields[16:24], "little"), fields[24:40], fields[40:56])
        if found.encode()[:_FIELDS_BYTES] != fields:
            return None
        decode_header(content[SUPERBLOCK_BYTES:], found.identity, SUPERBLOCK_BYTES)
    except CorruptData:
        return None
    return found
