"""What may stand in the file: sections, keys, and how each value is read. Data, and the few functions that apply it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qss.cache.options import PathPolicy
from qss.cache.schedule import Schedule
from qss.config.units import parse_duration, parse_size
from qss.errors import ConfigInvalid, Refused
from qss.limits import KIB, MIB, SEGMENT_BYTES_MAX, STRIPE_BYTES
from qss.offload.timetable import Timetable

Parser = Callable[[Any], Any]
"""A TOML value to ours. Raises ValueError with words that follow the value: 'is not a size; write …'."""


@dataclass(frozen=True, slots=True)
class Field:
    target: str  # attribute of the options class
    parse: Parser


def size(lowest: int = 0, highest: int = 2**63) -> Parser:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError('is not a size; write for example "512M"')
        count = parse_size(value) if isinstance(value, str) else value
        if not lowest <= count <= highest:
            raise ValueError(f"is out of range; write {lowest} to {highest} bytes")
        return count

    return parse


def duration(lowest_s: float = 0.0) -> Parser:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError('is not a duration; write for example "30s"')
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
        if not lowest_s <= seconds < 10**10:
            raise ValueError(f"is out of range; write at least {lowest_s:g} s")
        return seconds

    return parse


def absolute_path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("is not right; write a path from the root, such as /etc/qss/passphrase")
    return Path(value)


def whole(lowest: int, highest: int = 2**31) -> Parser:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"is not right; write a whole number from {lowest} to {highest}")
        return value

    return parse


def optional(inner: Parser) -> Parser:
    """Also "none"."""
    return lambda value: None if value == "none" else inner(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is not right; write true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not right; write a text in quotes")
    return value


def share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ValueError("is not right; write a share such as 0.2")
    return float(value)


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        raise ValueError("is not right; write a number above 0")
    return float(value)


def texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError('is not right; write for example { rack = "r1" }')
    return value


def counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(each) is int and each > 0 for each in value.values()):
        raise ValueError("is not right; write for example { rack = 2 }")
    return value


def schedule(value: Any) -> str:
    """As `qssctl snapshot schedule set` takes it."""
    try:
        return str(Schedule.parse(text(value)))
    except Refused as error:
        raise ValueError(f"does not hold: {error}") from error


def timetable(value: Any) -> Timetable:
    """Bandwidth by the clock."""
    try:
        return Timetable.parse(text(value))
    except ConfigInvalid as error:
        raise ValueError(f"does not hold: {error}") from error


def one_of(*allowed: str) -> Parser:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"is not right; write one of {', '.join(allowed)}")
        return str(value)

    return parse


def path_in(folder: Path) -> Parser:
    """Relative paths start at `folder`, where the configuration file is."""

    def parse(value: Any) -> Path:
        written = text(value)
        if not written or "\0" in written:
            raise ValueError("is no path")
        return Path(folder, os.path.expanduser(written))

    return parse


Fields = Mapping[str, Field]

CACHE: Final[Fields] = {
    "segment_size": Field("segment_bytes", size(STRIPE_BYTES, SEGMENT_BYTES_MAX)),
    "journal_size": Field("journal_bytes", size(64 * KIB, SEGMENT_BYTES_MAX)),
    "seal_after": Field("seal_after_s", duration(0.05)),
    "seal_bytes": Field("seal_bytes", size(64 * KIB)),
    "checkpoint_every": Field("checkpoint_every_s", duration(0.05)),
    "trim_after": Field("trim_after_bytes", size(64 * KIB)),
    "index_map": Field("index_map_bytes", size(16 * MIB)),
    "fetch_deadline": Field("fetch_deadline_s", duration(0.05)),
    "checkpoint_changes": Field("checkpoint_changes_max", whole(1)),
    "admit_deadline": Field("admit_deadline_s", duration(0.05)),
    "compact_limit": Field("compact_bytes_per_s", size()),
    "compact_waste": Field("compact_waste", share),
    "compact_waste_min": Field("compact_waste_bytes_min", size()),
    "soft_free": Field("free_bytes_soft", size()),
    "hard_free": Field("free_bytes_hard", size()),
}

PATH_POLICY: Final[Fields] = {
    "max_age": Field("age_s_max", optional(duration())),
    "max_size": Field("size_bytes_max", optional(size())),
}


def policies(value: Any) -> tuple[PathPolicy, ...]:
    """Sections [retention.paths."/a/path"]."""
    if not isinstance(value, dict):
        raise ValueError('is not right; write sections such as [retention.paths."/videos"]')
    found = []
    for path, table in value.items():
        if not path.startswith("/") or path != os.path.normpath(path) or path.startswith("//"):
            raise ValueError(f'has no path "{path}"; write paths from the root of the file system, such as "/videos"')
        try:
            found.append(PathPolicy(path, **apply(table, PATH_POLICY, f'[retention.paths."{path}"]')))
        except ConfigInvalid as error:
            raise ValueError(f"does not hold: {error}") from error
    return tuple(found)


RETENTION: Final[Fields] = {
    "max_size": Field("size_bytes_max", size()),
    "max_age": Field("age_s_max", optional(duration())),
    "min_free": Field("free_bytes_min", size()),
    "missing_shards": Field("missing_max", whole(0, 255)),
    "paths": Field("paths", policies),
}

OFFLOAD: Final[Fields] = {
    "margin": Field("margin", whole(0, 255)),
    "compression_level": Field("compression_level", whole(0, 19)),
    "memory": Field("memory_bytes", size(24 * MIB)),
    "nice": Field("nice", whole(0, 19)),
    "uploads_in_flight": Field("uploads_in_flight", whole(1, 64)),
    "fetches_in_flight": Field("fetches_in_flight", whole(1, 256)),
    "in_flight_per_location": Field("in_flight_per_location", whole(1, 256)),
    "put_deadline": Field("put_deadline_s", duration(0.05)),
    "get_deadline": Field("get_deadline_s", duration(0.05)),
    "fetch_deadline": Field("fetch_deadline_s", duration(0.05)),
    "attempts": Field("attempts", whole(1, 100)),
    "backoff_first": Field("backoff_first_s", duration(0.001)),
    "backoff_max": Field("backoff_max_s", duration(0.001)),
    "hedge_delay": Field("hedge_delay_s", duration()),
    "breaker_failures": Field("breaker_failures", whole(1, 1000)),
    "breaker_open_first": Field("breaker_open_first_s", duration(0.01)),
    "breaker_open_max": Field("breaker_open_max_s", duration(0.01)),
    "probe_interval": Field("probe_interval_s", duration(0.05)),
    "upload_limit": Field("upload_bytes_per_s", optional(size(1))),
    "download_limit": Field("download_bytes_per_s", optional(size(1))),
    "move_limit": Field("move_bytes_per_s", optional(size(1))),
    "schedule": Field("timetable", optional(timetable)),
    "repair_grace": Field("repair_grace_s", duration()),
    "repairs_in_flight": Field("repairs_in_flight", whole(1, 64)),
    "repair_limit": Field("repair_bytes_per_s", optional(size(1))),
    "history": Field("history_s", duration()),
    "scrub_period": Field("scrub_period_s", optional(duration(1.0))),
    "scrub_limit": Field("scrub_bytes_per_s", optional(size(1))),
    "max_per_domain": Field("max_per_domain", counts),
}

MOUNT: Final[Fields] = {
    "allow_other": Field("allow_other", flag),
    "writeback_cache": Field("writeback_cache", flag),
    "drain": Field("drain_s", duration()),
    "read_only": Field("read_only", flag),
    "atime": Field("atime", one_of("relatime", "noatime")),
    "nodev": Field("nodev", flag),
    "nosuid": Field("nosuid", flag),
    "noexec": Field("noexec", flag),
    "uid": Field("uid", whole(0, 2**32 - 2)),
    "gid": Field("gid", whole(0, 2**32 - 2)),
    "read_ahead": Field("read_ahead_bytes", size(4 * KIB, 64 * MIB)),
    "quota_bytes": Field("quota_bytes", optional(size(1))),
    "quota_inodes": Field("quota_inodes", optional(whole(1, 2**62))),
    "passphrase_file": Field("passphrase_file", absolute_path),
}

CODE: Final[Fields] = {"k": Field("k", whole(1, 255)), "m": Field("m", whole(0, 255))}


SNAPSHOTS: Final[Fields] = {"schedule": Field("schedule", schedule)}


def filesystem(folder: Path) -> Fields:
    path = path_in(folder)
    return {
        "state": Field("state", path),
        "run": Field("run_dir", path),
        "key_file": Field("key_file", path),
        "mountpoint": Field("mountpoint", path),
    }


def hooks(folder: Path) -> Fields:
    return {"dir": Field("folder", path_in(folder)), "time_limit": Field("time_limit_s", duration(0.1))}


def logs(folder: Path) -> Fields:
    level = one_of("debug", "info", "warning", "error")
    return {"level": Field("level", level), "file": Field("file", path_in(folder))}


def location_state(value: Any) -> bool:
    """Whether it is being drained."""
    return bool(one_of("active", "draining")(value) == "draining")


def location(folder: Path) -> Fields:
    return {
        "name": Field("name", text),
        "url": Field("url", text),
        "access_key": Field("access_key", text),
        "secret_key": Field("secret_key", text),
        "secret_key_file": Field("secret_file", path_in(folder)),
        "weight": Field("weight", number),
        "labels": Field("labels", texts),
        "metered": Field("metered", flag),
        "state": Field("draining", location_state),
        "ca_file": Field("ca_file", path_in(folder)),
        "client_cert": Field("client_cert", path_in(folder)),
        "client_key": Field("client_key", path_in(folder)),
    }


def refuse_unknown(given: Mapping[str, Any], known: list[str], where: str) -> None:
    """Raises ConfigInvalid for the first name that is not known, with the nearest that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigInvalid(f'{where}: "{name}" is not known; did you mean "{near}"?')


def apply(table: Any, fields: Fields, where: str) -> dict[str, Any]:
    """The values of one section, by attribute of its options class. Raises ConfigInvalid."""
    if not isinstance(table, dict):
        raise ConfigInvalid(f"{where}: this must be a section")
    refuse_unknown(table, list(fields), where)
    values: dict[str, Any] = {}
    for name, value in table.items():
        try:
            values[fields[name].target] = fields[name].parse(value)
        except ValueError as error:
            shown = "…" if "secret" in name else repr(value)
            raise ConfigInvalid(f"{where}: {name} = {shown} {error}") from error
    return values
