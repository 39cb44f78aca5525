"""Snapshots as people ask for them: what the mount process answers, and the same answers when nothing is mounted."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from qss.app import wire
from qss.app.identity import check_key, read_identity
from qss.app.running import is_held, is_locked, lock_file, state_lock
from qss.app.talk import call_mount
from qss.cache.schedule import OFF, Schedule
from qss.cache.snapshots import SnapshotFacts
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.errors import CorruptData, Refused, Unreachable
from qss.formats.tables import SnapshotRow
from qss.host import Host
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import RestorePoint

FOLDER: Final = "snapshots"
"""In the state directory: one directory for each snapshot that is mounted, under its number."""
LOCK: Final = "lock"
SOCKET: Final = "mount.sock"
MOUNTED: Final = "mount.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountedSnapshot:
    """`mount.json`: written when it can be used."""

    name: str
    mountpoint: str
    pid: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What can be looked at: a snapshot, or what the live file system is now."""

    name: str
    number: int  # 0: not a snapshot
    point: RestorePoint


def folder_of(settings: Settings, number: int) -> Path:
    return settings.state / FOLDER / str(number)


def mounted_in(folder: Path) -> MountedSnapshot | None:
    """The mount that lives in this directory; None: none does, or it is not ready yet."""
    if not is_held(folder / LOCK):
        return None
    try:
        return MountedSnapshot(**json.loads((folder / MOUNTED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def all_mounted(settings: Settings) -> Iterator[tuple[Path, MountedSnapshot]]:
    """Every mounted snapshot of this state directory, and where it lives."""
    parent = settings.state / FOLDER
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        found = mounted_in(folder)
        if found is not None:
            yield folder, found


def refuse_if_mounted(settings: Settings, number: int) -> None:
    """Raises Refused: who reads it would get errors for what is gone."""
    folder = folder_of(settings, number)
    if is_held(folder / LOCK):
        found = mounted_in(folder)
        where = f" on {found.mountpoint}" if found else ""
        raise Refused(f"the snapshot is mounted{where}: unmount it first")


@contextmanager
def scratch_of(folder: Path, name: str) -> Iterator[None]:
    """The directory, ours alone and empty but for its lock; removed at the end. Raises Refused when it is in use."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_file(folder / LOCK, f"the snapshot {name} is mounted already"):
        if not (folder / LOCK).exists():  # whoever had it removed it this moment
            raise Refused(f"the snapshot {name} is just being unmounted: try again")
        for left in folder.iterdir():
            if left.name != LOCK:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(settings: Settings) -> None:
    """Remove what killed processes have left."""
    parent = settings.state / FOLDER
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        with suppress(Refused), scratch_of(folder, folder.name):
            log.info("%s was left by a process that is gone", folder)


# -- answers


def snapshot_methods(cache: SegmentCache, settings: Settings) -> Mapping[str, Method]:
    """The methods about snapshots of run/mount.sock."""
    snapshots = cache.snapshots

    def shown(facts: SnapshotFacts) -> dict[str, Json]:
        found = mounted_in(folder_of(settings, facts.number))
        return asdict(facts) | {"mounted_on": found.mountpoint if found else ""}

    async def create(call: Call) -> Json:
        return shown(await snapshots.create(str(call.params["name"]), str(call.params.get("comment", ""))))

    async def list_(_call: Call) -> Json:
        return {
            "snapshots": [shown(each) for each in snapshots.listed()],
            "held_bytes": snapshots.held_bytes(),
            "schedule": str(schedule_of(cache, settings)),
        }

    async def delete(call: Call) -> Json:
        facts = snapshots.facts(str(call.params["name"]))
        refuse_if_mounted(settings, facts.number)
        await snapshots.delete(facts.name)
        return shown(facts)

    async def point(call: Call) -> Json:
        name = str(call.params["name"])
        return cut_to_json(Cut(name, snapshots.row(name).number, snapshots.point(name)))

    async def now(_call: Call) -> Json:
        await cache.cut()
        return cut_to_json(Cut("live", 0, snapshots.now()))

    async def schedule(call: Call) -> Json:
        if call.params.get("set") is not None:
            snapshots.set_schedule(Schedule.parse(str(call.params["set"])))
            await cache.sync_local()
        source = "configuration" if snapshots.schedule is None else "file system"
        return {"schedule": str(schedule_of(cache, settings)), "source": source}

    return {
        "snapshot.create": create,
        "snapshot.list": list_,
        "snapshot.delete": delete,
        "snapshot.point": point,
        "snapshot.now": now,
        "snapshot.schedule": schedule,
    }


def schedule_of(cache: SegmentCache, settings: Settings) -> Schedule:
    """The one in force: set at run time, else configured."""
    return cache.snapshots.schedule or Schedule.parse(settings.schedule or OFF)


def cut_to_json(cut: Cut) -> Json:
    return {"name": cut.name, "number": cut.number, "point": wire.point_to_json(cut.point)}


def cut_of(value: Json) -> Cut:
    """Raises CorruptData."""
    point = wire.point_of(value["point"])
    if point is None:
        raise CorruptData("a control value does not hold: no restore point")
    return Cut(str(value["name"]), wire.number(value["number"]), point)


# -- questions


def ask(settings: Settings, method: str, **params: Any) -> Any:
    """The answer of the mount process; without one the cache is opened here for as long as it takes.

    Raises what the method raises; Unreachable while it is just being mounted or unmounted.
    """
    try:
        return call_mount(settings, method, **params)
    except Unreachable:
        if is_locked(settings.state):
            raise
    check_key(settings)
    refuse_recovered(settings)
    with state_lock(settings.state):
        return trio.run(_answer_here, settings, method, params)


async def _answer_here(settings: Settings, method: str, params: dict[str, Any]) -> Any:
    cache = await SegmentCache.open(settings.cache_dir, Host(), settings.cache, None)
    try:

        async def ignore(_value: dict[str, Json]) -> None:
            return

        return await snapshot_methods(cache, settings)[method](Call(params, ignore))
    finally:
        await cache.close()


def refuse_recovered(settings: Settings) -> None:
    """Raises Refused when the state directory holds nothing but a recovered snapshot."""
    identity = read_identity(settings.state)
    if identity is not None and identity.snapshot:
        raise Refused(f"{settings.state} holds the snapshot {identity.snapshot} and nothing else: mount it and read it")


def find(settings: Settings, name: str | None) -> Cut:
    """Where a snapshot is; None: the one that was recovered here. Raises Refused when there is none."""
    identity = read_identity(settings.state)
    if identity is not None and identity.snapshot and name in (None, identity.snapshot):
        row = SnapshotRow.unpack(identity.snapshot_row)
        return Cut(identity.snapshot, row.number, recovered_point(settings, row))
    if name is None:
        raise Refused("name a snapshot; qssctl snapshot list shows them")
    return cut_of(ask(settings, "snapshot.point", name=name))


def recovered_point(settings: Settings, row: SnapshotRow) -> RestorePoint:
    """Of a snapshot that was recovered here: its journals are those that lie here."""
    journals = sorted(int(path.stem, 16) for path in (settings.cache_dir / "journal").glob("*.log"))
    kept = tuple(SegmentId(each) for each in journals if SEGMENT_ID_NONE < row.journal_first <= each)
    return RestorePoint(
        row.checkpoint, tuple(each for each in kept if each <= row.journal_last), row.created_ns, row.next_segment
    )


def live_cut(settings: Settings) -> Cut:
    """What the file system is now, as of a cut that this makes."""
    return cut_of(ask(settings, "snapshot.now"))
