"""A restore point laid out to be read: its logs in a scratch directory, and the index they give.

Logs that are here are hard-linked, others come from the locations. A log that is here and does not verify comes from
the locations too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from qss.cache.frozen import replayed
from qss.cache.index import Index
from qss.cache.segment_log import LOG_SUFFIX
from qss.config import Settings
from qss.errors import Damaged, QssError, Unreachable
from qss.host import Host
from qss.ids import SegmentId, segment_text
from qss.segments import RestorePoint

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
    journals = root / "journal"
    journals.mkdir(mode=0o700, parents=True)
    linked = [each for each in point.journals if _link(settings, each, journals)]
    await bring([each for each in point.journals if each not in set(linked)], journals, fetch)
    try:
        return await trio.to_thread.run_sync(replayed, root, host, settings.cache.index_map_bytes, point)
    except Damaged as error:
        if not linked:
            raise
        log.warning("the logs here do not hold (%s): they are fetched", error)
    shutil.rmtree(root / "index")
    await bring(linked, journals, fetch)
    return await trio.to_thread.run_sync(replayed, root, host, settings.cache.index_map_bytes, point)


def log_path(folder: Path, segment: SegmentId) -> Path:
    return folder / (segment_text(segment) + LOG_SUFFIX)


def _link(settings: Settings, segment: SegmentId, folder: Path) -> bool:
    """A log that is here, under a second name; False: it is not here."""
    try:
        log_path(folder, segment).hardlink_to(log_path(settings.cache_dir / "journal", segment))
    except OSError:
        return False
    return True


async def bring(segments: list[SegmentId], folder: Path, fetch: Fetch) -> None:
    """Fetch logs, a few at once; ends with the first trouble."""
    slots = trio.CapacityLimiter(FETCHES_AT_ONCE)
    trouble: list[QssError] = []

    async def one(segment: SegmentId) -> None:
        async with slots:
            try:
                await fetch(segment, log_path(folder, segment))
            except QssError as error:
                trouble.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for segment in segments:
            nursery.start_soon(one, segment)
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
