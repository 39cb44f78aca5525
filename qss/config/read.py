"""The text of a configuration file to Settings."""

from __future__ import annotations

import dataclasses
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qss.cache.options import CacheOptions, RetentionOptions
from qss.config import schema
from qss.config.location import location_of
from qss.config.settings import HookOptions, LogOptions, MountSettings, Settings
from qss.errors import ConfigInvalid
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.placement import LocationFacts, PlacementPolicy, check_policy

SECTIONS: Final = [
    "filesystem",
    "code",
    "cache",
    "retention",
    "offload",
    "mount",
    "snapshots",
    "hooks",
    "log",
    "location",
]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file. Raises ConfigInvalid, in one sentence that says what to write."""
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot read {path}: {error}") from error
    settings = parse(text, path, environ)
    if mode & _OTHERS and _holds_secret(text):
        raise ConfigInvalid(f"{path} holds a secret and others may read it: run chmod 600 {path}")
    for location in settings.locations:
        _check_secret_file(location)
    return settings


def parse(text: str, source: Path, environ: Mapping[str, str]) -> Settings:
    """As `load`, of a text that is not a file yet. `source` says where it stands: relative paths start there."""
    source = source.absolute()
    folder, where = source.parent, source.name
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{where} is not TOML: {error}") from error
    schema.refuse_unknown(document, SECTIONS, where)

    def section(name: str, fields: schema.Fields) -> dict[str, Any]:
        return schema.apply(document.get(name, {}), fields, f"{where} [{name}]")

    base = section("filesystem", schema.filesystem(folder))
    state = base.get("state", folder / "state")
    offload = OffloadOptions(**section("code", schema.CODE), **section("offload", schema.OFFLOAD))
    return Settings(
        source=source,
        state=state,
        run_dir=base.get("run_dir", state / "run"),
        key_file=base.get("key_file", state / "key"),
        mountpoint=base.get("mountpoint"),
        cache=CacheOptions(
            **section("cache", schema.CACHE),
            safe_missing_max=offload.k + offload.m - offload.safe_shards,
            history_s=offload.history_s,
            retention=RetentionOptions(**section("retention", schema.RETENTION)),
        ),
        offload=offload,
        locations=_locations(document.get("location", []), offload, environ, source),
        mount=MountSettings(**section("mount", schema.MOUNT)),
        hooks=HookOptions(**{"folder": state / "hooks"} | section("hooks", schema.hooks(folder))),
        log=LogOptions(**section("log", schema.logs(folder))),
        **section("snapshots", schema.SNAPSHOTS),
    )


def _locations(
    tables: Any, offload: OffloadOptions, environ: Mapping[str, str], source: Path
) -> tuple[LocationOptions, ...]:
    where = source.name
    if not isinstance(tables, list):
        raise ConfigInvalid(f"{where}: write each location as a section [[location]]")
    found: list[LocationOptions] = []
    for position, table in enumerate(tables, 1):
        here = f"{where} [[location]] {position}"
        found.append(
            location_of(schema.apply(table, schema.location(source.parent), here), environ, here, source.parent)
        )
    check_locations(found, offload, where)
    return tuple(found)


def check_locations(locations: list[LocationOptions], offload: OffloadOptions, where: str) -> None:
    """Raises ConfigInvalid unless there are k+m locations that take shards and are all different, and the policy for
    labels can be kept with them."""
    needed = offload.k + offload.m
    staying = [each for each in locations if not each.draining]
    if len(staying) < needed <= len(locations):
        raise ConfigInvalid(
            f"{where}: k={offload.k} and m={offload.m} need at least {needed} locations that take shards, and"
            f" {len(staying)} do: add one before another is drained"
        )
    if len(locations) < needed:
        raise ConfigInvalid(
            f"{where}: k={offload.k} and m={offload.m} need at least {needed} locations, and there are {len(locations)}"
        )
    checks: list[tuple[str, list[str]]] = [
        ("name", [str(each.name) for each in locations]),
        ("address", [f"{each.endpoint}/{each.bucket}/{each.prefix}" for each in locations]),
    ]
    for what, seen in checks:
        for value in seen:
            if seen.count(value) > 1:
                raise ConfigInvalid(f"{where}: two locations have the same {what}, {value}")
    facts = [LocationFacts(each.name, each.weight, each.labels, leaving=each.draining) for each in locations]
    check_policy(offload.k, offload.m, facts, PlacementPolicy(offload.max_per_domain))


def _holds_secret(text: str) -> bool:
    tables = tomllib.loads(text).get("location", [])
    return any(not str(table.get("secret_key", "env:")).startswith("env:") for table in tables)


def _check_secret_file(location: LocationOptions) -> None:
    for path in (location.secret_file, location.client_key):
        if path is None:
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise ConfigInvalid(f"the secret of location {location.name} is not at {path}") from error
        if mode & _OTHERS:
            raise ConfigInvalid(f"{path} holds a secret and others may read it: run chmod 600 {path}")


def uncovered() -> dict[str, set[str]]:
    """Attributes of the options classes that no key of the file sets; for a test that knows them all."""
    pairs: list[tuple[type, list[schema.Fields]]] = [
        (CacheOptions, [schema.CACHE]),
        (RetentionOptions, [schema.RETENTION]),
        (OffloadOptions, [schema.CODE, schema.OFFLOAD]),
        (MountSettings, [schema.MOUNT]),
    ]
    return {
        kind.__name__: {each.name for each in dataclasses.fields(kind)}
        - {each.target for fields in tables for each in fields.values()}
        for kind, tables in pairs
    }
