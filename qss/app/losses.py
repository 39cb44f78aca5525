"""What is lost beyond what the code makes good: which segments, which bytes of which files. ADR 0126.

recover            assesses, before anything is decided: without --partial nothing is changed
recover --partial  keeps the list as STATE/lost.json, and restores everything else
mount              reads of what is on the list fail at once; it is tried again now and then, and what is back
                   leaves the list
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from qss.app.running import write_whole
from qss.cache.lost import Needed
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.errors import CorruptData
from qss.formats.tables import ExtentRow, Table
from qss.fs.losses import DamagedFile, Index, files_in_segments
from qss.fs.tree import pages
from qss.fs.unreadable import Unreadable
from qss.ids import SegmentId

if TYPE_CHECKING:  # the mount process does without a client of the locations
    from qss.offload.recovery import Lost, Recovery

VERSION: Final = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one restore point."""

    segments: Mapping[SegmentId, str]  # too few shards answer, and why; whoever needs them
    files: tuple[DamagedFile, ...] = ()
    for_snapshots: frozenset[SegmentId] = field(default_factory=frozenset)  # that no file of now needs

    @property
    def nothing(self) -> bool:
        """Nobody will miss anything."""
        return not self.files and not self.for_snapshots

    def to_json(self) -> dict[str, Any]:
        return {
            "lost_segments": [[segment, why] for segment, why in sorted(self.segments.items())],
            "lost_for_snapshots": sorted(self.for_snapshots),
            "lost_bytes": sum(each.lost_bytes for each in self.files),
            "damaged_files": [each.to_json() for each in self.files],
        }

    @classmethod
    def of_json(cls, value: Any) -> Loss:
        """Raises CorruptData."""
        try:
            return cls(
                {SegmentId(int(segment)): str(why) for segment, why in value["lost_segments"]},
                tuple(DamagedFile.of_json(each) for each in value["damaged_files"]),
                frozenset(SegmentId(int(segment)) for segment in value["lost_for_snapshots"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData("a list of what is lost does not hold") from error

    def __str__(self) -> str:
        named = len(self.files)
        files = f"{named} files are damaged" if named != 1 else "1 file is damaged"
        kept = f"; {len(self.for_snapshots)} more segments are needed by snapshots" if self.for_snapshots else ""
        return f"{len(self.segments)} segments have too few shards at the locations that answer: {files}{kept}"


async def assess(recovery: Recovery, need: Needed, known: Collection[SegmentId], k: int) -> list[Lost]:
    """Those of the needed segments, but for `known`, of which too few shards answer: by a listing of all locations.
    `k`: of segments without a row."""
    rows = {segment: row for segment, row in need.all.items() if segment not in known}
    return await recovery.missing({segment: row.k if row and row.k else k for segment, row in rows.items()})


async def loss_of(index: Index, lost: Collection[Lost], need: Needed) -> Loss:
    """What is missed with these segments."""
    why = dict(lost)
    files = await files_in_segments(index, why, trio.lowlevel.checkpoint)
    return Loss(why, tuple(files), frozenset(why.keys() & need.snapshots.keys()))


# -- the list in the state directory


def lost_path(settings: Settings) -> Path:
    return settings.state / "lost.json"


def write_loss(settings: Settings, loss: Loss) -> None:
    """Replaced whole, synced, 0600; removed when nothing is lost any more."""
    path = lost_path(settings)
    if loss.nothing:
        path.unlink(missing_ok=True)
    else:
        write_whole(path, json.dumps({"version": VERSION, **loss.to_json()}) + "\n", 0o600)


def read_loss(settings: Settings) -> Loss | None:
    """None: nothing is known to be lost. Raises CorruptData."""
    try:
        value = json.loads(lost_path(settings).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CorruptData(f"{lost_path(settings)} does not hold") from error
    return Loss.of_json(value)


async def keep_track(settings: Settings, cache: SegmentCache, unreadable: Unreadable) -> None:
    """While mounted: reads of what is lost fail at once, it stands among what cannot be read, and the list follows
    what comes back or is deleted. Returns when nothing is lost any more."""
    try:
        loss = read_loss(settings)
    except CorruptData as error:
        _log.error("%s: what is lost shows when it is read", error)
        return
    if loss is None:
        return
    why = cache.lost.why
    why.update(loss.segments)
    async for page in pages(cache, Table.EXTENTS, b"", None, trio.lowlevel.checkpoint):
        for _, value in page:
            extent = ExtentRow.unpack(value)
            if extent.segment in why:
                unreadable.note(extent, 0, extent.length, why[extent.segment])
    while True:
        before = len(why)
        files = await files_in_segments(cache, why, trio.lowlevel.checkpoint)
        loss = Loss(dict(why), tuple(files), loss.for_snapshots & why.keys())
        write_loss(settings, loss)
        if loss.nothing:
            return
        if len(why) == before:
            await cache.lost.healed.wait()
