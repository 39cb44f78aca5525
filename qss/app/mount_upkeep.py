"""Durability, warming, and what is passed on to the offload process, on the mount process's control socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import trio

from qss.app.durability import document
from qss.app.rewriting import Rewriting, plan, rewrite
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.errors import CorruptData, QssError
from qss.fs import tree
from qss.fs.warm import Warmth, room_for, warm

RELAYED: Final = ("scrub.start", "scrub.stop", "scrub.status", "repair.status")
"""Passed on to the offload process."""
STANDING_ANSWER_S_MAX: Final = 20.0
PROGRESS_S: Final = 0.2


def mount_upkeep_methods(cache: SegmentCache, settings: Settings, offload: ControlClient) -> Mapping[str, Method]:
    """Of the mount process."""

    def relay(name: str) -> Method:
        return lambda _call: offload.call(name)

    async def durability(_call: Call) -> Json:
        stands: Json = None
        with trio.move_on_after(STANDING_ANSWER_S_MAX):
            try:
                stands = await offload.call("standing")
            except QssError:
                stands = None  # the rest is true without it
        return document(settings, stands)

    return {
        **{name: relay(name) for name in RELAYED},
        "durability": durability,
        "warm": lambda call: _warm(cache, call),
        "rewrite": lambda call: _rewrite(cache, settings, call),
    }


async def _warm(cache: SegmentCache, call: Call) -> Json:
    paths = call.params["paths"]
    if not isinstance(paths, list) or not all(isinstance(each, str) and each.startswith("/") for each in paths):
        raise CorruptData("paths from the root of the file system are needed")
    inodes = [tree.resolve(cache, os.path.normpath(os.fsencode(each))) for each in paths]
    await cache.eviction.refresh()
    told_s = float("-inf")

    async def report(found: Warmth) -> None:
        nonlocal told_s
        if trio.current_time() - told_s >= PROGRESS_S:
            told_s = trio.current_time()
            await call.progress({"done_bytes": found.done_bytes, "total_bytes": found.total_bytes})

    return asdict(await warm(cache, inodes, room_for(cache), report))


async def _rewrite(cache: SegmentCache, settings: Settings, call: Call) -> Json:
    """To the code this mount runs with. A call that ends early has done a part; the next one goes on."""
    code = (settings.offload.k, settings.offload.m)
    found = Rewriting.of(code, plan(await cache.stored_segments(), code))

    async def report(now: Rewriting) -> None:
        await call.progress({"done_bytes": now.done_bytes, "total_bytes": now.total_bytes})

    if not call.params.get("dry_run"):
        await rewrite(cache, code, found, report)
    return asdict(found)
