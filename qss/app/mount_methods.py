"""What the mount process knows of itself, and what it answers on its control socket."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import trio

from qss.app import mountpoint as places
from qss.app import wire
from qss.app.carriers import shelf_methods
from qss.app.fsck_methods import fsck_methods
from qss.app.hooks import UserHooks
from qss.app.identity import read_identity
from qss.app.mount_upkeep import mount_upkeep_methods
from qss.app.retention_methods import limits_of, retention_methods
from qss.app.snapshots import snapshot_methods
from qss.app.supervise import Supervisor
from qss.cache.retention import EvictionReport
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Calls, Method
from qss.errors import CorruptData, QssError, Refused
from qss.fs.keeping import Keeping
from qss.fs.unreadable import Place, Unreadable
from qss.host import Clock
from qss.ids import SegmentId, segment_text
from qss.offload.durability import durability

OFFLOAD_ANSWER_S_MAX: Final = 2.0
"""How long a status may wait for the offload process before it is shown without."""
PROGRESS_S: Final = 0.2

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class MountProcess:
    """Parts and state of the running mount process. Lives on its trio loop."""

    settings: Settings
    mountpoint: Path
    cache: SegmentCache
    offload: ControlClient
    supervisor: Supervisor
    hooks: UserHooks
    keeping: Keeping
    clock: Clock
    started_ns: int
    drain_s: float = 0.0
    left_bytes: int = 0  # at risk when it ended
    seals: int = 0  # counts up with every sealed segment; wakes offload
    news: trio.Event = field(default_factory=trio.Event)
    asked_to_end: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)  # all is done but to close the cache
    calls: Calls = field(default_factory=Calls)
    fenced: str = ""  # why this machine only reads now; empty: it writes
    fenced_off: trio.Event = field(default_factory=trio.Event)

    unreadable: Unreadable = field(init=False)
    sealed_ns: int = 0  # when the last seal was durable, wall clock
    sealed: list[tuple[SegmentId, int]] = field(default_factory=list)  # and their bytes, since the last hook

    def __post_init__(self) -> None:
        self.drain_s = self.settings.mount.drain_s
        self.cache.on_sealed = self._note_sealed
        self.cache.eviction.on_evicted = self._tell_evicted
        self.unreadable = Unreadable(self.cache, self.clock, self._tell_missing)
        self.cache.on_unreadable = self.unreadable.note

    def fence_off(self, reason: str) -> None:
        """Another machine writes this file system: here it is only read from now on. Once."""
        if reason and not self.fenced:
            log.error("read-only from now on: %s", reason)
            self.fenced = reason
            self.fenced_off.set()

    def _note_sealed(self, segment: SegmentId, count: int) -> None:
        self.sealed.append((segment, count))
        self.sealed_ns = self.clock.now_ns()

    def _tell_missing(self, place: Place) -> None:
        facts = {"segment": place.segment, "stripe": place.stripe, "paths": list(place.paths or ())}
        log.error("segment %s, stripe %d cannot be read: %s", segment_text(place.segment), place.stripe, place.reason)
        self.hooks.post("segment-missing", facts | {"reason": place.reason})

    def _tell_evicted(self, report: EvictionReport) -> None:
        facts = {"bytes": report.freed_bytes, "segments": report.segments, "stripes": report.stripes}
        self.hooks.post("segment-evicted", facts | {"reasons": [str(reason) for reason in report.reasons]})

    @property
    def at_risk_bytes(self) -> int:
        return self.cache.facts().at_risk_bytes

    async def relay_seals(self) -> None:
        """Wake whoever waits for a new sealed segment."""
        while True:
            await self.cache.wait_sealed()
            self.seals += 1
            self.news.set()
            self.news = trio.Event()
            sealed, self.sealed = self.sealed, []
            if sealed:
                facts = {"segments": [segment for segment, _ in sealed], "bytes": sum(count for _, count in sealed)}
                self.hooks.post("segment-sealed", facts | {"unsafe_bytes": self.cache.facts().unsafe_bytes})


def methods(process: MountProcess) -> Mapping[str, Method]:
    """The method table of run/mount.sock."""
    shelf = dict(shelf_methods(process.cache))
    mark_offloaded = shelf["shelf.mark_offloaded"]

    async def mark_and_tell(call: Call) -> Json:
        await mark_offloaded(call)
        receipt = wire.receipt_of(call.params["receipt"])
        process.hooks.post("segment-offloaded", {"segment": receipt.segment, "missing": receipt.missing})

    return {
        **shelf,
        "shelf.mark_offloaded": mark_and_tell,
        "shelf.wait_sealed": lambda call: _wait_sealed(process, call),
        "where": lambda _call: _where(process),
        "status": lambda _call: _status(process),
        "sync": lambda call: _sync(process, call),
        "cut": lambda _call: _cut(process),
        "checkpoint": lambda _call: _checkpoint(process),
        **retention_methods(process.cache, process.keeping),
        **fsck_methods(process.cache),
        **snapshot_methods(process.cache, process.settings),
        **mount_upkeep_methods(process.cache, process.settings, process.offload),
        "hook": lambda call: _hook(process, call),
        "unmount": lambda call: _unmount(process, call),
    }


async def _wait_sealed(process: MountProcess, call: Call) -> Json:
    """Return the count of seals, and when the last was, as soon as the count is not `seen` any more."""
    seen = call.params.get("seen")
    while process.seals == seen:
        await process.news.wait()
    return {"seals": process.seals, "sealed_ns": process.sealed_ns}


async def _where(process: MountProcess) -> Json:
    return {"mountpoint": str(process.mountpoint), "pid": os.getpid(), "started_ns": process.started_ns}


async def _cut(process: MountProcess) -> Json:
    return {"journal": await process.cache.cut()}


async def _checkpoint(process: MountProcess) -> Json:
    """Make a checkpoint of the journal now."""
    return {"segments": list(await process.cache.checkpoint_journal())}


async def _sync(process: MountProcess, call: Call) -> Json:
    """Cut, and wait until a root names it; says how far it is. Raises Refused when this machine may not write."""
    journal = await process.cache.cut()

    async def report() -> None:
        while True:
            await call.progress({"at_risk_bytes": process.at_risk_bytes})
            await trio.sleep(PROGRESS_S)

    async def give_up_when_fenced() -> None:
        await process.fenced_off.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        nursery.start_soon(give_up_when_fenced)
        await process.cache.wait_published(SegmentId(journal))
        nursery.cancel_scope.cancel()
    if process.fenced:
        raise Refused(process.fenced)
    facts = process.cache.facts()
    return {"journal": journal, "cut_ns": facts.published_cut_ns, "at_risk_bytes": facts.at_risk_bytes}


async def _hook(process: MountProcess, call: Call) -> Json:
    """An event of the offload process."""
    event, facts = call.params["event"], call.params.get("facts", {})
    if not isinstance(event, str) or not isinstance(facts, dict):
        raise CorruptData("an event has a name and facts")
    if event == "fenced":
        process.fence_off(str(facts.get("reason", "")))
        return
    process.hooks.post(event, facts)


async def _unmount(process: MountProcess, call: Call) -> Json:
    """Take the mount away, wind down; answers when only the cache has to be closed yet."""
    if "drain_s" in call.params:
        process.drain_s = float(call.params["drain_s"])
    await trio.to_thread.run_sync(_take_away, process.mountpoint, bool(call.params.get("lazy")))
    process.asked_to_end.set()
    await process.ended.wait()
    return {"mountpoint": str(process.mountpoint), "at_risk_bytes": process.left_bytes}


def _take_away(path: Path, lazy: bool) -> None:
    if places.mounted_type(path) is not None:
        places.unmount(path, lazy=lazy)


# -- status


async def _status(process: MountProcess) -> Json:
    """The one document of `qssctl status --json` (docs/operations.md)."""
    settings, facts = process.settings, process.cache.facts()
    offload = await _ask_offload(process)
    identity = read_identity(settings.state)
    damage = offload.get("damage", {"found": 0})
    return {
        "version": version("qss"),
        "fs_id": identity.fs_id if identity else "",
        "mountpoint": str(process.mountpoint),
        "state": str(settings.state),
        "pid": os.getpid(),
        "started_ns": process.started_ns,
        "k": settings.offload.k,
        "m": settings.offload.m,
        "fenced": process.fenced,
        "at_risk_bytes": facts.at_risk_bytes,
        "oldest_unsafe_age_s": facts.at_risk_age_s if facts.at_risk_bytes else None,
        "published_cut_ns": facts.published_cut_ns,
        "pressure": {
            "state": str(process.cache.pressure),
            "waiting_writers": facts.writers_waiting,
            "refused_writes": facts.writers_refused,
            "free_bytes": facts.disk_free_bytes,
            "soft_bytes": settings.cache.free_bytes_soft,
            "hard_bytes": settings.cache.free_bytes_hard,
        },
        "queue": {"segments": facts.segments_sealed, "bytes": facts.unsafe_bytes},
        "cache": {
            **asdict(facts),
            "local_bytes": facts.data_local_bytes + facts.stripe_bytes,
            "fetched_bytes": facts.fetch_bytes,
            **limits_of(process.cache.eviction.retention),
        },
        "offload": {
            "running": process.supervisor.pid is not None,
            "pid": process.supervisor.pid,
            "starts": process.supervisor.starts,
            **offload.get("offload", {}),
        },
        "repair": offload.get("repair"),
        "nines": durability(settings.offload.k, settings.offload.m).nines,
        "locations": offload.get("locations") or [_unknown(str(each.name)) for each in settings.locations],
        "damage": damage
        | {
            "found": damage["found"] + facts.damaged_reads,
            "healed": facts.damage_healed,
            "unreadable": [_place_to_json(place) for place in process.unreadable.places],
        },
        "pins": [asdict(pin) for pin in process.keeping.pins()],
        "hooks": {"failed": process.hooks.failed, "dropped": process.hooks.dropped},
        "errors": offload.get("errors", []),
    }


def _place_to_json(place: Place) -> Json:
    return {
        "segment": place.segment,
        "stripe": place.stripe,
        "reason": place.reason,
        "since_ns": place.since_ns,
        "paths": list(place.paths or ()),
    }


def _unknown(name: str) -> Json:
    return {"name": name, "up": None, "latency_s": None, "last_error": "offload does not answer"}


async def _ask_offload(process: MountProcess) -> dict[str, Json]:
    """The offload process's own figures; without them when it does not answer soon."""
    with trio.move_on_after(OFFLOAD_ANSWER_S_MAX):
        try:
            answer: dict[str, Json] = await process.offload.call("status")
            return answer
        except QssError as error:
            return {"errors": [process.supervisor.trouble or str(error)]}
    return {"errors": [process.supervisor.trouble or "offload does not answer"]}
