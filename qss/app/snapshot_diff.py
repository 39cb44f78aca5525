"""qssctl snapshot diff: both states laid out in a scratch directory, then compared row by row, in qssctl itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from qss.app.fetching import reading_vault
from qss.app.identity import check_key, unlocked
from qss.app.locations import open_nodes
from qss.app.snapshot_view import lay_out
from qss.app.snapshots import FOLDER, Cut, find, live_cut
from qss.cache.index import Index
from qss.config import Settings
from qss.fs.diff import Difference, compare
from qss.host import Host
from qss.offload.keys import FsKeys

LIVE: Final = "live"
"""What stands for the file system as it is now."""


@contextmanager
def differences(settings: Settings, older: str, newer: str) -> Iterator[Iterator[Difference]]:
    """What has changed from one snapshot to another, or to now. Raises Refused, TooFewShards, Damaged, Unreachable."""
    settings = unlocked(settings)
    keys = FsKeys.derive(check_key(settings))
    cuts = [live_cut(settings) if name == LIVE else find(settings, name) for name in (older, newer)]
    scratch = settings.state / FOLDER / f"diff-{os.getpid()}"
    indexes: list[Index] = []
    try:
        indexes += trio.run(_laid_out, settings, keys, cuts, scratch)
        yield compare(*indexes)
    finally:
        for index in indexes:
            index.close()
        shutil.rmtree(scratch, ignore_errors=True)


async def _laid_out(settings: Settings, keys: FsKeys, cuts: list[Cut], scratch: Path) -> list[Index]:
    host, made = Host(), []
    async with open_nodes(settings, host) as nodes:
        vault = reading_vault(settings, keys, nodes, host, scratch / "offload")
        for number, cut in enumerate(cuts):
            made.append(await lay_out(settings, host, cut.point, scratch / str(number), vault.fetch_segment))
    return made
