"""qssctl init, location test: a file system before its first mount.

Order of `create`, and what is left when it stops in the middle: first everything is looked at and refused that will
not do (1, 2: nothing touched); then buckets are made (3: empty buckets) and looked into for roots of the same key (4);
then the key (5: a key nothing uses yet), then the identity of the state directory (6), last the configuration (7),
which is what makes it a file system.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import trio

from qss.app.identity import Identity, read_identity, write_identity
from qss.app.locations import open_nodes
from qss.app.running import write_whole
from qss.app.sheet import recovery_sheet, sheet_path
from qss.app.unlock import open_file
from qss.config import Settings, UnlockOptions, parse
from qss.config.location import location_of
from qss.config.write import NewConfig, NewLocation, Value, relative, render
from qss.errors import AccessDenied, ConfigInvalid, ObjectMissing, QssError, Refused, Unreachable
from qss.formats.keyfile import Note
from qss.host import Host
from qss.ids import LocationId
from qss.offload.durability import default_code, durability
from qss.offload.keyfiles import kinds_in, write_key_file
from qss.offload.keys import FsKeys, MasterKey, fs_id_of, recovery_phrase
from qss.offload.nodes import Node, Nodes
from qss.offload.options import LocationOptions
from qss.offload.placement import PlacementPolicy, check_policy
from qss.offload.roots import RootBook
from qss.s3.client import S3Client
from qss.s3.store import Body

PROBE_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user asked for. Paths are absolute."""

    config: Path
    locations: tuple[str, ...]  # URLs as typed
    k: int | None
    m: int | None
    state: Path
    key_file: Path | None  # None: STATE/key
    mountpoint: Path | None
    folder: Path  # relative paths in the URLs start here
    extra: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)  # further keys of the configuration
    unlock: UnlockOptions = field(default_factory=UnlockOptions)  # for a key that is there
    words_on_sheet: bool = False  # the 24 words, in the file of the recovery sheet
    passphrase: str | None = field(default=None, repr=False)  # for a new one; None: the key lies bare in its file

    @property
    def key(self) -> Path:
        return self.key_file or self.state / "key"


def create(plan: Plan, environ: Mapping[str, str]) -> dict[str, Any]:
    """A new file system; facts about it for the user. Raises QssError with nothing made, or see above."""
    if plan.config.exists():
        raise Refused(f"{plan.config} is there already: choose another --config, or remove it")
    if read_identity(plan.state) is not None:
        raise Refused(f"{plan.state} holds a file system already: choose another --state")
    text, settings = draft(plan, environ)  # 1. does it hold together?
    warnings = policy_warnings(settings)
    host = Host()
    made_key = not plan.key.exists()
    master = MasterKey.generate(host.entropy) if made_key else open_file(plan.key, plan.unlock)
    latencies = trio.run(_prepare_locations, settings, FsKeys.derive(master), host)  # 2. to 4.
    plan.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made_key:
        plan.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = Note(created_s=host.clock.now_ns() // 10**9)
        write_key_file(plan.key, master, host.entropy, plan.passphrase, note=note)  # 5.
    fs_id = fs_id_of(master).hex()
    write_identity(plan.state, Identity(fs_id, host.clock.now_ns()))  # 6.
    plan.config.parent.mkdir(parents=True, exist_ok=True)
    write_whole(plan.config, text, 0o600)  # 7.
    sheet = sheet_path(plan.config)
    words = recovery_phrase(master) if plan.words_on_sheet else None
    kinds = kinds_in(plan.key)
    write_whole(sheet, recovery_sheet(settings, fs_id, kinds, host.clock.now_ns(), words), 0o600)
    offload = settings.offload
    facts = durability(offload.k, offload.m)
    return {
        "fs_id": fs_id,
        "config": str(plan.config),
        "state": str(plan.state),
        "key_file": str(plan.key),
        "key_made": made_key,
        "sheet": str(sheet),
        "mountpoint": str(plan.mountpoint) if plan.mountpoint else None,
        "k": offload.k,
        "m": offload.m,
        "overhead": facts.overhead,
        "nines": facts.nines,
        "locations": [each.name for each in settings.locations],
        "latency_s": latencies,
        "warnings": warnings,
        "seal_after_s": settings.cache.seal_after_s,
    }


def draft(plan: Plan, environ: Mapping[str, str]) -> tuple[str, Settings]:
    """The configuration file of a plan, as text and as what it means. Raises ConfigInvalid."""
    sections = sections_of(plan, environ)
    default_k, default_m = default_code(len(sections))
    k = default_k if plan.k is None else plan.k
    m = default_m if plan.m is None else plan.m
    return written(plan, sections, k, m, environ)


def sections_of(plan: Plan, environ: Mapping[str, str]) -> list[NewLocation]:
    """The locations of a plan as they are to be written. Raises ConfigInvalid."""
    if not plan.locations:
        raise ConfigInvalid("name the locations, each with --location http://host:port/bucket?…")
    given = [location_of({"url": url}, environ, "--location", plan.folder) for url in plan.locations]
    return _as_written(given, plan)


def written(
    plan: Plan, sections: Sequence[NewLocation], k: int, m: int, environ: Mapping[str, str]
) -> tuple[str, Settings]:
    """The configuration file with these locations. Raises ConfigInvalid."""
    folder = plan.config.parent
    new = NewConfig(
        state=relative(plan.state, folder),
        key_file=relative(plan.key, folder),
        mountpoint=relative(plan.mountpoint, folder) if plan.mountpoint else None,
        k=k,
        m=m,
        locations=sections,
        extra=plan.extra,
    )
    text = render(new)
    return text, parse(text, plan.config, environ)


def _as_written(given: list[LocationOptions], plan: Plan) -> list[NewLocation]:
    """The sections of the configuration. Secrets stay where they are: in their file or environment variable."""
    named = [("name=" in url.partition("?")[2]) for url in plan.locations]
    buckets = Counter(each.bucket for each in given)
    sections = []
    for each, has_name, url in zip(given, named, plan.locations, strict=True):
        host = each.endpoint.partition("://")[2].replace(":", "-").strip("[]")
        name = str(each.name) if has_name or buckets[each.bucket] == 1 else f"{host}-{each.bucket}"
        query = url.partition("?")[2]
        settings: dict[str, Value] = {}
        if "access_key=" in query:
            settings["access_key"] = _raw(query, "access_key")
        if each.secret_file is not None:
            settings["secret_key_file"] = relative(each.secret_file, plan.config.parent)
        elif "secret_key=" in query:
            settings["secret_key"] = _raw(query, "secret_key")
        else:
            settings |= {"access_key": "env:AWS_ACCESS_KEY_ID", "secret_key": "env:AWS_SECRET_ACCESS_KEY"}
        if each.weight != 1.0:
            settings["weight"] = each.weight
        if each.metered:
            settings["metered"] = True
        for key in ("ca_file", "client_cert", "client_key"):
            path: Path | None = getattr(each, key)
            if path is not None:
                settings[key] = relative(path, plan.config.parent)
        place = f"{each.endpoint}/{each.bucket}" + (f"/{each.prefix}" if each.prefix else "")
        region = "" if each.region == "us-east-1" else f"?region={each.region}"
        sections.append(NewLocation(name, place + region, settings, each.labels))
    return sections


def _raw(query: str, name: str) -> str:
    from urllib.parse import parse_qs

    return parse_qs(query, keep_blank_values=True)[name][-1]


def policy_warnings(settings: Settings) -> list[str]:
    """Raises ConfigInvalid when k+m shards cannot be placed; sentences about domains whose loss would lose data."""
    from qss.offload.placement import LocationFacts

    facts = [LocationFacts(each.name, each.weight, each.labels, leaving=each.draining) for each in settings.locations]
    offload = settings.offload
    return check_policy(offload.k, offload.m, facts, PlacementPolicy(offload.max_per_domain))


async def _prepare_locations(settings: Settings, keys: FsKeys, host: Host) -> dict[str, float]:
    """Every location answers, lets us in, has the bucket, keeps an object; latencies by name.

    Raises the first trouble, with the location's name. Buckets are only made once all locations have answered.
    """
    async with open_nodes(settings, host) as nodes:
        await _at_each(nodes, _knock)  # 2.
        await _at_each(nodes, _ensure_bucket)  # 3.
        await _refuse_used_key(nodes, keys, host)  # 4.
        return await _at_each(nodes, lambda node: _probe(node, host))


async def _at_each(nodes: Nodes, act: Callable[[Node], Awaitable[Any]]) -> dict[str, Any]:
    """Do it at all locations at once. Raises the trouble of the first location, in their order, that has any."""
    outcome: dict[LocationId, Any] = {}

    async def one(node: Node) -> None:
        try:
            outcome[node.location] = await act(node)
        except QssError as error:
            outcome[node.location] = error

    async with trio.open_nursery() as nursery:
        for node in nodes.values():
            nursery.start_soon(one, node)
    for name in nodes:
        if isinstance(outcome[name], QssError):
            raise _named(name, outcome[name])
    return {str(name): outcome[name] for name in nodes}


def _named(name: LocationId, error: QssError) -> QssError:
    """The same kind of error, in a sentence that names the location."""
    if isinstance(error, AccessDenied):
        return AccessDenied(f"location {name} refuses the credentials or the request: {error}")
    if isinstance(error, Unreachable):
        return Unreachable(f"location {name} cannot be reached: {error}")
    return type(error)(f"location {name}: {error}") if isinstance(error, Refused) else error


async def _knock(node: Node) -> None:
    """Does it answer, and let us in? Whether there is a bucket or not."""
    with suppress(ObjectMissing):
        await node.head("knock")


async def _ensure_bucket(node: Node) -> None:
    await cast(S3Client, node.store).ensure_bucket()


async def _refuse_used_key(nodes: Nodes, keys: FsKeys, host: Host) -> None:
    """A key that has a file system at these locations must not begin another one there."""
    async with aclosing(RootBook(nodes, keys, host).newest_first()) as roots:
        async for root in roots:
            raise Refused(
                f"these locations hold the file system of this key already (root {root.generation}): "
                "bring it back with qssctl recover, or use another key"
            )


async def _probe(node: Node, host: Host) -> float:
    """Put, get and delete a small object; seconds it took. Raises QssError."""
    content = host.entropy.token(PROBE_BYTES)
    name = f"probe-{host.entropy.token(8).hex()}"

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield content

    began = trio.current_time()
    await node.put(name, Body(len(content), chunks))
    try:
        if await node.get(name) != content:
            raise Refused("it returns other bytes than were put")
    finally:
        with trio.CancelScope(shield=True):
            await node.delete(name)
    return trio.current_time() - began


def prepare_location(settings: Settings, options: LocationOptions) -> float:
    """One more location answers, lets us in, has its bucket (made if need be), keeps an object; seconds that took.
    Raises the trouble, with its name."""
    host = Host()

    async def go() -> float:
        async with open_nodes(replace(settings, locations=(options,)), host) as nodes:
            await _at_each(nodes, _knock)
            await _at_each(nodes, _ensure_bucket)
            took: dict[str, float] = await _at_each(nodes, lambda node: _probe(node, host))
            return took[str(options.name)]

    return trio.run(go)


def probe_locations(settings: Settings) -> list[dict[str, Any]]:
    """What `qssctl location test` shows: every location tried by itself."""
    host = Host()
    rows: dict[str, dict[str, Any]] = {}

    async def one(node: Node) -> None:
        row: dict[str, Any] = {"name": str(node.location), "ok": False, "latency_s": None, "error": ""}
        try:
            row["latency_s"] = await _probe(node, host)
            row["ok"] = True
        except QssError as error:
            row["error"] = str(error)
        rows[row["name"]] = row

    async def go() -> None:
        async with open_nodes(settings, host) as nodes, trio.open_nursery() as nursery:
            for node in nodes.values():
                nursery.start_soon(one, node)

    trio.run(go)
    return [rows[str(each.name)] for each in settings.locations]
