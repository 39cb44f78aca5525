"""What `qssctl location list` shows: the configuration, and what the running file system says of each location."""

from __future__ import annotations

from typing import Any

from qss.app import talk
from qss.app.locations import place_of
from qss.config import Settings
from qss.errors import QssError
from qss.offload.options import LocationOptions


def rows_of(settings: Settings) -> list[dict[str, Any]]:
    """One row for each configured location, in their order; None where nobody knows, as when it is not mounted."""
    seen: dict[str, dict[str, Any]] = {}
    held: dict[str, dict[str, Any]] = {}
    try:
        seen = {each["name"]: each for each in talk.call(settings.offload_socket, "status")["locations"]}
        held = talk.call(settings.offload_socket, "location.held")
    except QssError:
        pass
    return [_row(each, seen.get(each.name, {}), held.get(each.name, {})) for each in settings.locations]


def _row(options: LocationOptions, seen: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": options.name,
        "url": place_of(options),
        "labels": dict(options.labels),
        "weight": options.weight,
        "metered": options.metered,
        "state": state_of(options.draining, seen),
        "draining": options.draining,
        "shards": held.get("shards"),
        "bytes": held.get("bytes"),
        "free_bytes": seen.get("free_bytes"),
        "shards_left": seen.get("shards_left"),
        "bytes_left": seen.get("bytes_left"),
        "latency_s": seen.get("latency_s"),
        "error_rate": seen.get("error_rate"),
        "last_error": seen.get("last_error", ""),
    }


def state_of(draining: bool, seen: dict[str, Any]) -> str:
    """In a word or two."""
    up = seen.get("up")
    if up is None:
        return "unknown"
    if not up:
        return "down"
    if seen.get("denied"):
        return "denied"
    if not draining:
        return "up"
    left = seen.get("shards_left")
    return "draining" if left is None or left else "drained"
