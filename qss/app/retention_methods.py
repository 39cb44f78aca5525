"""Retention and pins on the mount process's control socket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from qss.cache.options import RetentionOptions
from qss.cache.retention import GENERAL, Candidate, Reason
from qss.cache.store import SegmentCache
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.errors import CorruptData, Refused
from qss.fs.keeping import Keeping

SHOWN_MAX: Final = 200
"""Copies in one answer of `retention.show`."""


def limits_of(options: RetentionOptions) -> dict[str, Json]:
    """As JSON; `RetentionOptions.of_json` reads it back."""
    return asdict(options)


def retention_methods(cache: SegmentCache, keeping: Keeping) -> Mapping[str, Method]:
    """retention.show, .set, .run, .pin, .unpin, .pins."""

    async def set_limits(call: Call) -> Json:
        try:
            options = RetentionOptions.of_json(call.params)
        except TypeError as error:
            raise CorruptData("retention.set: wrong limits") from error
        cache.eviction.set_retention(options)
        return limits_of(options)

    async def pin(call: Call) -> Json:
        path = _path_of(call)
        keeping.pin(path)
        await cache.sync_local()  # it holds after a power cut
        await cache.eviction.refresh()
        return await _pins(keeping)

    async def unpin(call: Call) -> Json:
        path = _path_of(call)
        await keeping.refresh()  # where pinned files are now
        if not keeping.unpin(path):
            raise Refused(f"{os.fsdecode(path)} is not pinned itself; qssctl retention pins shows what is")
        await cache.sync_local()
        return await _pins(keeping)

    async def pins(_call: Call) -> Json:
        await cache.eviction.refresh()
        return await _pins(keeping)

    return {
        "retention.show": lambda call: _show(cache, keeping, call),
        "retention.set": set_limits,
        "retention.run": lambda call: _run(cache, call),
        "retention.pin": pin,
        "retention.unpin": unpin,
        "retention.pins": pins,
    }


def _path_of(call: Call) -> bytes:
    path = call.params["path"]
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise CorruptData("a path from the root of the file system is needed")
    return os.path.normpath(os.fsencode(path))


async def _pins(keeping: Keeping) -> list[Json]:
    return [asdict(pin) for pin in keeping.pins()]


async def _show(cache: SegmentCache, keeping: Keeping, call: Call) -> Json:
    """The limits, what goes now, what would go next and why not yet, and what is pinned."""
    shown = int(call.params.get("next", 0))
    await cache.eviction.refresh()
    facts, options = cache.facts(), cache.eviction.retention
    order, pinned = cache.eviction.order()
    going = {(victim.copy.segment, victim.copy.stripe): victim.reason for victim in cache.eviction.plan()}
    safe = sum(copy.size for copy in order)
    held = sum(copy.size for copy in pinned)
    local = facts.data_local_bytes + facts.stripe_bytes
    return {
        **limits_of(options),
        "local_bytes": local,
        "free_bytes": facts.disk_free_bytes,
        "evictable_bytes": safe,
        "pinned_bytes": held,
        "unsafe_local_bytes": local - safe - held,
        "copies": len(order),
        "next": [
            _copy_to_json(copy, going.get((copy.segment, copy.stripe)), options)
            for copy in order[: min(shown, SHOWN_MAX)]
        ],
        "kept": [_copy_to_json(copy, None, options) for copy in pinned[: min(shown, SHOWN_MAX)]],
        "pins": await _pins(keeping),
    }


def _copy_to_json(copy: Candidate, reason: Reason | None, options: RetentionOptions) -> Json:
    policy = copy.protection.policy
    return {
        "segment": copy.segment,
        "stripe": copy.stripe,
        "bytes": copy.size,
        "idle_s": round(copy.idle_s, 1),
        "used_again": copy.again,
        "policy": None if policy == GENERAL else options.paths[policy].path,
        "pin": copy.protection.pin,
        "reason": None if reason is None else str(reason),
    }


async def _run(cache: SegmentCache, call: Call) -> Json:
    everything = bool(call.params.get("everything"))
    await cache.eviction.refresh()
    victims = cache.eviction.plan(all_=everything)
    if call.params.get("dry_run"):
        options = cache.eviction.retention
        done: dict[str, Any] = {
            "bytes": sum(victim.copy.size for victim in victims),
            "victims": [_copy_to_json(victim.copy, victim.reason, options) for victim in victims],
        }
    else:
        report = await cache.eviction.evict(victims)
        done = {"bytes": report.freed_bytes, "segments": report.segments, "stripes": report.stripes}
    facts = cache.facts()
    return done | {"local_bytes": facts.data_local_bytes + facts.stripe_bytes}
