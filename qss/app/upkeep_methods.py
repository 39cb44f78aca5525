"""Repair, scrub, durability and warming on the control sockets: the offload process's side, and the mount's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import trio

from qss.app.durability import document
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.errors import CorruptData, QssError
from qss.fs import tree
from qss.fs.warm import Warmth, room_for, warm
from qss.offload.courier import Courier
from qss.offload.standing import standing
from qss.offload.vault import Vault
from qss.segments import SegmentShelf

RELAYED: Final = ("scrub.start", "scrub.stop", "scrub.status", "repair.status")
"""What the mount process passes on to the offload process."""
STANDING_ANSWER_S_MAX: Final = 20.0
PROGRESS_S: Final = 0.2


def upkeep_methods(vault: Vault, courier: Courier, shelf: SegmentShelf) -> Mapping[str, Method]:
    """Of the offload process."""

    async def start(_call: Call) -> Json:
        courier.scrubber.start()
        return scrub_facts(courier)

    async def stop(_call: Call) -> Json:
        courier.scrubber.stop()
        return scrub_facts(courier)

    async def scrub_status(_call: Call) -> Json:
        return scrub_facts(courier)

    async def repair_status(_call: Call) -> Json:
        return repair_facts(courier)

    async def standing_now(_call: Call) -> Json:
        found = await standing(await shelf.stored_segments(), vault, courier.mender.lost)
        return asdict(found) | {
            "weakest_spare": found.weakest_spare,
            "by_spare": {str(spare): count for spare, count in found.by_spare.items()},
            "given_up": sorted(courier.mender.lost),
        }

    return {
        "scrub.start": start,
        "scrub.stop": stop,
        "scrub.status": scrub_status,
        "repair.status": repair_status,
        "standing": standing_now,
    }


def repair_facts(courier: Courier) -> dict[str, Json]:
    return asdict(courier.mender.facts) | {"given_up": list(courier.mender.facts.given_up)}


def scrub_facts(courier: Courier) -> dict[str, Json]:
    """State, progress of the round, and what was found by location since the start of the process."""
    scrubber = courier.scrubber
    mark = scrubber.mark
    by_location: dict[str, dict[str, int]] = {}
    for (location, verdict), count in sorted(scrubber.verdicts.items()):
        by_location.setdefault(location, {"sound": 0, "bad": 0, "silent": 0})[verdict] = count
    state = "stopped" if mark.stopped else "running" if mark.started_ns else "waiting"
    return {
        "state": state,
        "rounds": mark.round,
        "started_ns": mark.started_ns,
        "ended_ns": mark.ended_ns,
        "segments": scrubber.total,
        "segments_done": scrubber.done,
        "shards": mark.shards,
        "bytes": mark.bytes,
        "bad": mark.found,
        "silent": mark.unseen,
        "locations": by_location,
        "repair": repair_facts(courier),
    }


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
