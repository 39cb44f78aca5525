"""A restore point laid out to be read: its logs in a scratch directory, and the index they give.

Logs that are here are hard-linked, others come from the locations. A log that is here and does not verify comes from
the locations too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from qss.cache.frozen import build_index, open_index
from qss.cache.index import Index
from qss.cache.recovery import INDEX_DIR
from qss.cache.segment_log import FOLDERS, log_path
from qss.config import Settings
from qss.errors import Damaged, QssError, Unreachable
from qss.host import Host
from qss.ids import SegmentId
from qss.segments import RestorePoint, SegmentKind

Fetch = Callable[[SegmentId, Path], Awaitable[object]]
"""Bring a whole segment from the locations. Raises TooFewShards, Damaged, Unreachable."""

FETCHES_AT_ONCE: Final = 4
PATIENCE_S: Final = 60.0
RETRY_S: Final = 0.1

log = logging.getLogger(__name__)


async def lay_out(settings: Settings, host: Host, point: RestorePoint, root: Path, fetch: Fetch) -> Index:
    """The index of `point`, with its logs, in the directory `root`, which is made. To be closed by this thread.

    Raises what `fetch` does, and Damaged when what it brings does not verify.
    """
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        (root / FOLDERS[kind]).mkdir(mode=0o700, parents=True)
    logs = logs_of(point, root)
    here = {segment for segment, path in logs.items() if _link(path, logs_of(point, settings.cache_dir)[segment])}
    await bring({segment: path for segment, path in logs.items() if segment not in here}, fetch)
    map_bytes = settings.cache.index_map_bytes
    try:
        await trio.to_thread.run_sync(build_index, root, host, map_bytes, point)
    except Damaged as error:
        if not here:
            raise
        log.warning("the logs here do not hold (%s): they are fetched", error)
        shutil.rmtree(root / INDEX_DIR)
        for segment in here:
            logs[segment].unlink()
        await bring({segment: logs[segment] for segment in here}, fetch)
        await trio.to_thread.run_sync(build_index, root, host, map_bytes, point)
    return open_index(root, map_bytes)


def logs_of(point: RestorePoint, root: Path) -> dict[SegmentId, Path]:
    """Where the logs of a restore point lie in a cache."""
    paths = {segment: log_path(root, SegmentKind.CHECKPOINT, segment) for segment in point.checkpoint}
    return paths | {segment: log_path(root, SegmentKind.JOURNAL, segment) for segment in point.journals}


def _link(path: Path, existing: Path) -> bool:
    """A log that is here, under a second name; False: it is not here."""
    try:
        path.hardlink_to(existing)
    except OSError:
        return False
    return True


async def bring(paths: Mapping[SegmentId, Path], fetch: Fetch) -> None:
    """Fetch logs, a few at once; ends with the first trouble."""
    slots = trio.CapacityLimiter(FETCHES_AT_ONCE)
    trouble: list[QssError] = []

    async def one(segment: SegmentId, path: Path) -> None:
        async with slots:
            try:
                await fetch(segment, path)
            except QssError as error:
                trouble.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for segment, path in paths.items():
            nursery.start_soon(one, segment, path)
    if trouble:
        raise trouble[0]


def patient(fetch: Fetch) -> Fetch:
    """A fetch that waits for a process that is just starting."""

    async def wait(segment: SegmentId, into: Path) -> None:
        deadline = trio.current_time() + PATIENCE_S
        while True:
            try:
                await fetch(segment, into)
            except Unreachable:
                if trio.current_time() > deadline:
                    raise
            else:
                return
            await trio.sleep(RETRY_S)

    return wait
