"""qssctl drill: proves that the file system can be restored from the key and the locations alone. ADR 0126.

    newest root → its checkpoint and journals → index → is every segment there? → stripes, a sample or all, record by
    record → compared with what is here: the live index, copies of content

Everything is brought to a scratch directory that is removed at the end, also when it is interrupted; what a killed
drill has left, the next one removes. Nothing else is touched: no state, no location, no epoch, no hold.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from qss.app.drill_content import Content, Stripe, look_at_content, sampled, stripes_of
from qss.app.drill_live import Compared, compare_live
from qss.app.exits import Exit, ungrouped
from qss.app.identity import read_identity
from qss.app.locations import open_nodes
from qss.app.losses import assess
from qss.app.restore import only, skipped_roots
from qss.app.running import lock_file
from qss.app.talk import OnProgress
from qss.cache.frozen import build_index, open_index
from qss.cache.index import Index
from qss.cache.lost import Needed, needed
from qss.cache.segment_log import FOLDERS, log_path
from qss.config import Settings
from qss.errors import QssError, Refused
from qss.formats.tables import ExtentRow, Table
from qss.fs.losses import damaged_files
from qss.host import Host
from qss.ids import SegmentId
from qss.limits import STRIPE_BYTES
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.nodes import Nodes
from qss.offload.recovery import Chosen, Lost, Recovery
from qss.offload.roots import RootBook
from qss.offload.vault import Vault
from qss.segments import SegmentKind

PREFIX: Final = "qss-drill-"
LOCK: Final = "lock"
SAMPLE: Final = 64
"""Stripes fetched, unless told otherwise; at most 256 MiB."""
CATCH_UP_S_MAX: Final = 60.0
"""How long the live index may take to come to where the root is."""
CATCH_UP_STEP_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked at."""

    stripes: int | None = SAMPLE  # fetched, at most; None: all
    seed: int = 0  # which ones
    at_ns: int | None = None  # the newest root that is not younger; None: the newest
    scratch: Path | None = None  # a directory with room; None: the system's


@dataclass(frozen=True, slots=True)
class Drill:
    """The parts of one."""

    settings: Settings
    nodes: Nodes
    keys: FsKeys
    host: Host
    folder: Path  # ours alone
    tell: Callable[[str, int], None]  # (stage, how far)


def drilling(wanted: Wanted, on_progress: OnProgress | None) -> Callable[[Settings, MasterKey], dict[str, Any]]:
    """The document of `qssctl drill --json`."""

    def drill(settings: Settings, master: MasterKey) -> dict[str, Any]:
        def tell(stage: str, count: int) -> None:
            if on_progress is not None:
                on_progress({"stage": stage, "looked_at": count})

        keys = FsKeys.derive(master)
        with scratch_in(wanted.scratch or Path(tempfile.gettempdir())) as folder, ungrouped():
            return trio.run(_until_signalled, settings, keys, folder, wanted, tell)

    return drill


def exit_code(document: dict[str, Any]) -> Exit:
    """docs/operations.md."""
    if not document["restorable"]:
        return Exit.DATA
    content = document["content"]
    return Exit.FOUND if document["lost_segments"] or content["failed"] or content["differs_here"] else Exit.OK


@contextmanager
def scratch_in(base: Path) -> Iterator[Path]:
    """A directory of our own, removed at the end; those of drills that were killed go now. Raises Refused."""
    for left in base.glob(f"{PREFIX}*"):
        with suppress(Refused, OSError), lock_file(left / LOCK, "a drill is under way there"):
            shutil.rmtree(left)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    except OSError as error:
        raise Refused(
            f"no scratch directory can be made in {base}: {error.strerror}; name another by --scratch"
        ) from None
    try:
        with lock_file(folder / LOCK, "another drill removes this directory"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _until_signalled(
    settings: Settings, keys: FsKeys, folder: Path, wanted: Wanted, tell: Callable[[str, int], None]
) -> dict[str, Any]:
    """Raises KeyboardInterrupt for a signal that asks for the end, so that what was made is removed."""
    document: dict[str, Any] = {}

    async def end_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_on_signal)
        host = Host()
        async with open_nodes(settings, host) as nodes:
            document |= await run_drill(Drill(settings, nodes, keys, host, folder, tell), wanted)
        nursery.cancel_scope.cancel()
    if not document:
        raise KeyboardInterrupt
    return document


def _cache_here(settings: Settings, keys: FsKeys) -> Path | None:
    """If this machine has the file system, too."""
    identity = read_identity(settings.state)
    return settings.cache_dir if identity and identity.fs_id == keys.fs_id.hex() else None


async def run_drill(drill: Drill, wanted: Wanted) -> dict[str, Any]:
    """The drill itself, in `drill.folder`. Raises as a recovery does when no root can be restored."""
    began_ns = drill.host.clock.now_ns()
    root = drill.folder / "cache"
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        (root / FOLDERS[kind]).mkdir(mode=0o700, parents=True)
    vault = Vault(drill.nodes, drill.keys, drill.settings.offload, drill.host, drill.folder / "offload")
    recovery = Recovery(
        vault, RootBook(drill.nodes, drill.keys, drill.host), lambda what, done, _: drill.tell(what, done)
    )
    chosen = await recovery.choose(lambda segment, kind: log_path(root, kind, segment), wanted.at_ns)
    if not chosen.paths:
        raise Refused("nothing of this file system has been stored yet: there is nothing to restore")
    only(root, chosen.paths)
    drill.tell("replay", 0)
    map_bytes = drill.settings.cache.index_map_bytes
    await trio.to_thread.run_sync(build_index, root, drill.host, map_bytes, chosen.root.point)
    index = open_index(root, map_bytes)
    try:
        need = needed(index, chosen.root.point.logs)
        lost = await assess(recovery, need, (), chosen.root.k)
        stripes = await _stripes(vault, need, lost)
        lent = _cache_here(drill.settings, drill.keys)
        content = await _content(drill, vault, index, lent, stripes, wanted)
        files = await damaged_files(index, _damaged_by(lost, content), trio.lowlevel.checkpoint)
        live = await _live(drill, index, root, lent)
        counted = {"files": index.count(Table.INODES), "bytes": index.live_total, "segments": len(need.all)}
    finally:
        index.close()
    for_snapshots = sorted({segment for segment, _ in lost} & need.snapshots.keys())
    return {
        "restorable": not (files or for_snapshots or chosen.skipped or live.different),
        **_root_facts(chosen),
        **counted,
        "lost_segments": [list(each) for each in lost],
        "lost_for_snapshots": for_snapshots,
        "damaged_files": [each.to_json() for each in files],
        "content": _content_json(content, wanted),
        "live": asdict(live),
        "took_s": (drill.host.clock.now_ns() - began_ns) / 1e9,
    }


async def _stripes(vault: Vault, need: Needed, lost: list[Lost]) -> list[Stripe]:
    """All that files need and that may be had. A segment nobody says the length of joins those that are `lost`."""
    lengths: dict[SegmentId, int] = {}
    known = {segment for segment, _ in lost}
    for segment, row in need.files.items():
        if segment in known:
            continue
        try:
            lengths[segment] = row.length if row else (await vault.manifest_of(segment)).segment.length
        except QssError as error:
            lost.append((segment, str(error)))
    return list(stripes_of(lengths))


async def _content(
    drill: Drill, vault: Vault, index: Index, lent: Path | None, every: list[Stripe], wanted: Wanted
) -> Content:
    chosen = every if wanted.stripes is None else sampled(every, wanted.stripes, wanted.seed)
    return await look_at_content(
        index, vault, chosen, drill.folder / "stripes", lent,
        lambda done: drill.tell(f"stripes of {len(chosen)}", done),
    )  # fmt: skip


def _damaged_by(lost: list[Lost], content: Content) -> Callable[[ExtentRow], bool]:
    segments = {segment for segment, _ in lost}
    failed = content.failed

    def damaged(row: ExtentRow) -> bool:
        return row.segment in segments or (row.segment, row.record_position // STRIPE_BYTES) in failed

    return damaged


async def _live(drill: Drill, index: Index, root: Path, lent: Path | None) -> Compared:
    """With the index of this machine, while it is mounted."""
    settings = drill.settings
    if lent is None or not settings.mount_socket.exists():
        return Compared(why_not="it is not mounted here")
    drill.tell("live index", 0)
    with trio.move_on_after(CATCH_UP_S_MAX):
        while True:
            found = compare_live(index, root, lent, drill.host, settings.cache.index_map_bytes)
            if found is not None:
                return found
            await trio.sleep(CATCH_UP_STEP_S)
    return Compared(why_not="the live index has not come to where that root is")


def _root_facts(chosen: Chosen) -> dict[str, Any]:
    report = chosen.report((), ())
    return {
        "fs_id": chosen.root.fs_id.hex(),
        "generation": chosen.root.generation,
        "cut_ns": chosen.root.point.cut_ns,
        "created_ns": chosen.root.created_ns,
        "logs": len(chosen.paths),
        "answered": chosen.answered,
        "locations": chosen.locations,
        "majority": chosen.majority,
        "skipped_roots": [[each.generation, each.cut_ns, each.why] for each in chosen.skipped],
        "notes": skipped_roots(report),
    }


def _content_json(content: Content, wanted: Wanted) -> dict[str, Any]:
    return {
        "sample": wanted.stripes,
        "seed": wanted.seed,
        "stripes": content.stripes,
        "bytes": content.bytes,
        "records": content.records,
        "live_records": content.live_records,
        "compared_bytes": content.compared_bytes,
        "failed": [[*stripe, why] for stripe, why in sorted(content.failed.items())],
        "differs_here": sorted(content.differs_here),
    }
