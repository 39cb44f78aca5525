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

from qss.cache.frozen import replayed
from qss.cache.index import Index
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
    """The index of `point`, with its logs, in the directory `root`, which is made. Close the index at the end.

    Raises what `fetch` does, and Damaged when what it brings does not verify.
    """
    make_log_folders(root)
    paths = {segment: log_path(root, kind, segment) for segment, kind in point.logs.items()}
    linked = {
        segment: paths[segment]
        for segment, kind in point.logs.items()
        if _link(log_path(settings.cache_dir, kind, segment), paths[segment])
    }
    await bring({segment: path for segment, path in paths.items() if segment not in linked}, fetch)
    try:
        return await trio.to_thread.run_sync(replayed, root, host, settings.cache.index_map_bytes, point)
    except Damaged as error:
        if not linked:
            raise
        log.warning("the logs here do not hold (%s): they are fetched", error)
    shutil.rmtree(root / "index")
    await bring(linked, fetch)
    return await trio.to_thread.run_sync(replayed, root, host, settings.cache.index_map_bytes, point)


def make_log_folders(root: Path) -> None:
    """For the logs of a restore point."""
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        (root / FOLDERS[kind]).mkdir(mode=0o700, parents=True)


def _link(here: Path, second: Path) -> bool:
    """A log that is here, under a second name; False: it is not here."""
    try:
        second.hardlink_to(here)
    except OSError:
        return False
    return True


async def bring(wanted: Mapping[SegmentId, Path], fetch: Fetch) -> None:
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
        for segment, path in wanted.items():
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
