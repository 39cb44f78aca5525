"""Repair, scrub and how segments stand on the offload process's control socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.offload.courier import Courier
from qss.offload.standing import standing
from qss.offload.vault import Vault
from qss.segments import SegmentShelf


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
