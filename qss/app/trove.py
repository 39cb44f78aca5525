"""Composition root of the storage node: one process, one event loop, volumes below and HTTP in front."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from qss.app.exits import Exit
from qss.app.log_limit import limit_logs
from qss.app.trove_fronts import FRONTS, Fronts
from qss.app.trove_tls import tls_of
from qss.config.find import environment
from qss.errors import ConfigInvalid, Refused
from qss.formats.sse import key_id_of
from qss.host import Host
from qss.host.buffers import KEPT_BYTES_LESS, keep_buffers
from qss.s3.patience import USUAL, Patience, shared
from qss.s3.serve import Tls, run, serve
from qss.s3.server import ServiceOptions
from qss.trove.access_log import AccessLog
from qss.trove.commit import SyncMode
from qss.trove.compaction import compact_one
from qss.trove.credentials import Credentials, Given, load_credentials
from qss.trove.meters import Meters
from qss.trove.node import MARKER, DataLock, Node, NodeOptions, clean_slate
from qss.trove.repair import Outcome, mend_superblocks, repair
from qss.trove.sealing import add_key
from qss.trove.verify import verify_all
from qss.trove.watching import Watching

S3_DEFAULT: Final = "127.0.0.1:9000"
OFF: Final = "off"
_OF_THE_NODE: Final = (
    "upload_age_s_max",
    "compact_garbage",
    "compact_bytes_per_s",
    "scrub_period_s",
    "scrub_bytes_per_s",
)
"""Keys of trove.toml that no option of the command line says."""
FILES_OF_THE_KERNEL: Final = 1 << 20
"""fs.nr_open as Linux sets it: where a process has no limit of its own."""
CONNECTIONS_MAX: Final[Mapping[str, int]] = {"admin": 256, "console": 1024}
"""Of fronts for people and operators; the others have what `qss.s3.patience` gives."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line of `trove serve`."""

    data: tuple[Path, ...] = ()
    s3: str | None = None
    admin: str | None = None
    files: str | None = None
    console: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    mutual_tls: tuple[str, ...] = ()
    access_log: Path | None = None
    public_url: str | None = None
    domains: tuple[str, ...] = ()
    config: Path | None = None
    access_key: str | None = None
    secret_key_file: Path | None = None
    client_wait_s: float | None = None
    sync: str | None = None
    clean_slate: bool = False
    allow_missing: bool = False
    pid_file: Path | None = None
    as_json: bool = False
    sse_c_over_http: bool = False  # only from the file


def _with_file(options: ServeOptions) -> tuple[ServeOptions, dict[str, Any]]:
    """Fill in from the configuration file what the command line leaves open. Also the node's own options from there."""
    values: dict[str, Any] = {}
    if options.config is not None:
        from qss.config.trove import load_trove  # here: most starts have no file, and readiness is counted in ms

        values = load_trove(options.config)
    own: dict[str, Any] = {name: values.pop(name) for name in _OF_THE_NODE if name in values}
    left_open = {name: value for name, value in values.items() if not getattr(options, name)}
    options = replace(options, **left_open)
    if not options.data:
        raise ConfigInvalid("say where the node keeps its data: --data DIR")
    return replace(options, s3=options.s3 or S3_DEFAULT), own


def parse_address(text: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port". Raises ConfigInvalid."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigInvalid(f'"{text}" is no address; write host:port, for example 127.0.0.1:9000')
    return host.strip("[]") or "127.0.0.1", int(port)


def _sync_mode(text: str) -> SyncMode:
    try:
        return SyncMode(text)
    except ValueError:
        raise ConfigInvalid(f'"{text}" is no sync mode; write group, each or os') from None


def serve_node(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises Refused and its kin when it cannot start."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    limit_logs()
    options, own = _with_file(options)
    addresses = {name: parse_address(text) for name in FRONTS if (text := getattr(options, name)) not in (None, OFF)}
    if not addresses:
        raise ConfigInvalid("every front door is off; give one of --s3, --files, --admin and --console an address")
    tls = tls_of(options.tls_cert, options.tls_key, options.tls_client_ca, options.mutual_tls, list(addresses))
    data = tuple(path.absolute() for path in options.data)
    node_options = NodeOptions(data, _sync_mode(options.sync or "group"), allow_missing=options.allow_missing, **own)
    if options.clean_slate:
        for directory in node_options.data:
            clean_slate(directory)
    keep_buffers(KEPT_BYTES_LESS)
    host = Host()
    patience = _patience(options.client_wait_s, addresses)
    doors = {name: Door(address, tls[name], patience[name]) for name, address in addresses.items()}
    run(_serve(options, node_options, doors, host))


def _patience(wait_s: float | None, fronts: Collection[str]) -> dict[str, Patience]:
    """By front. As many files open as the system lets us: each connection is one."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    if files_max == resource.RLIM_INFINITY:
        files_max = FILES_OF_THE_KERNEL
    usual = USUAL if wait_s is None else replace(USUAL, head_s=min(USUAL.head_s, wait_s), wait_s=wait_s)
    asked = {name: replace(usual, connections_max=CONNECTIONS_MAX.get(name, usual.connections_max)) for name in fronts}
    return shared(asked, files_max)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a front listens."""

    address: tuple[str, int]
    tls: Tls | None
    patience: Patience
    renew: asyncio.Event = field(default_factory=asyncio.Event)


async def _serve(options: ServeOptions, node_options: NodeOptions, doors: dict[str, Door], host: Host) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node(node_options)
    try:
        given = Given(options.access_key, options.secret_key_file)
        credentials = load_credentials(node_options.data[0], given, environment(), host.entropy)
        await _run(node, options, doors, credentials, stop)
    finally:
        await node.aclose()
        if options.pid_file is not None:
            options.pid_file.unlink(missing_ok=True)


async def _run(
    node: Node,
    options: ServeOptions,
    doors: dict[str, Door],
    credentials: Credentials,
    stop: asyncio.Event,
) -> None:
    """Listen, say so, and run until `stop` is set or a part fails. SIGHUP: read certificates again, begin a new log."""
    clock = node.options.host.clock
    watching = Watching(Meters(clock), None if options.access_log is None else AccessLog(options.access_log, clock))
    service = ServiceOptions(
        domains=tuple(name.lower() for name in options.domains), keys_over_http=options.sse_c_over_http
    )
    fronts = Fronts(node, credentials, watching, options.public_url, service)
    apps = fronts.apps()

    def renew() -> None:
        watching.reopen()
        for door in doors.values():
            door.renew.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew)

    def ready(name: str, host: str, port: int) -> None:
        scheme = "http" if doors[name].tls is None else "https"
        fronts.listening[name] = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        if fronts.listening.keys() == doors.keys():
            gc.freeze()
            fronts.health.ready = True
            _announce(options, fronts.listening, credentials)

    async def stand_at(name: str, door: Door) -> None:
        await serve(
            apps[name],
            door.address,
            stop=stop,
            tls=door.tls,
            on_ready=partial(ready, name),
            renew=door.renew,
            observe=watching.observer(name),
            patience=door.patience,
        )

    background = [
        asyncio.create_task(node.maintain(), name="trove-maintain"),
        asyncio.create_task(watching.run(), name="trove-watching"),
    ]
    servers = [asyncio.create_task(stand_at(name, door), name=f"trove-{name}") for name, door in doors.items()]
    done, _ = await asyncio.wait([*background, *servers], return_when=asyncio.FIRST_COMPLETED)
    fronts.health.ready = False
    stop.set()
    await asyncio.gather(*servers, return_exceptions=True)
    for task in background:
        task.cancel()
    watching.close()
    for task in done:
        task.result()


def _announce(options: ServeOptions, listening: dict[str, str], credentials: Credentials) -> None:
    """Say that we listen. New credentials are shown here and never again."""
    if options.pid_file is not None:
        options.pid_file.write_text(f"{os.getpid()}\n")
    if options.as_json:
        line: dict[str, Any] = {"event": "ready", "pid": os.getpid()}
        line |= {name: listening[name].partition("//")[2] if name in listening else None for name in FRONTS}
        if credentials.fresh:
            line |= {"access_key": credentials.access_key, "secret_key": credentials.secret_key}
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        for name, address in listening.items():
            sys.stdout.write(f"{FRONTS[name]} at {address}\n")
        if credentials.fresh:
            sys.stdout.write(
                f"access key {credentials.access_key}\nsecret key {credentials.secret_key}\n"
                "They are shown this once and kept in credentials.json of the data directory.\n"
            )
        if "console" in listening:
            sys.stdout.write("Sign in at the console with an access key and its secret key.\n")
    sys.stdout.flush()


def _opened(
    data: tuple[Path, ...], work: Callable[[Node], Awaitable[Any]], *, rebuild: bool = False, forget: bool = False
) -> Any:
    """Open a stopped node, do something with it, close it."""
    if not all(path.is_dir() for path in data):
        raise Refused("there is no such directory: " + ", ".join(str(path) for path in data if not path.is_dir()))

    async def all_of_it() -> Any:
        paths = tuple(path.absolute() for path in data)
        node = Node(NodeOptions(paths, rebuild=rebuild, forget_missing=forget))
        try:
            return await work(node)
        finally:
            await node.aclose()

    return asyncio.run(all_of_it())


def inspect_node(data: tuple[Path, ...]) -> None:
    async def work(node: Node) -> dict[str, Any]:
        return node.status()

    sys.stdout.write(json.dumps(_opened(data, work), indent=1) + "\n")


def verify_node(data: tuple[Path, ...]) -> int:
    async def work(node: Node) -> dict[str, Any]:
        return await verify_all(node.store, None)

    result = _opened(data, work)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return Exit.DATA if result["damaged"] else Exit.OK


def compact_node(data: tuple[Path, ...]) -> None:
    async def work(node: Node) -> int:
        rounds = len(node.engine.volumes.volumes)
        return sum([await compact_one(node.engine, 0.0, 0) for _ in range(rounds)])

    sys.stdout.write(json.dumps({"freed_bytes": _opened(data, work)}) + "\n")


def new_node_key(directory: Path) -> None:
    """Of the node whose first directory this is. Raises Refused."""
    if not ((directory / MARKER).exists() and (directory / "index").exists()):
        raise Refused(f"{directory} is not the first --data of a Trove")
    lock = DataLock([directory])
    try:
        keys = add_key(directory, Host().entropy)
    finally:
        lock.release()
    sys.stdout.write(json.dumps({"key": key_id_of(keys[0]).hex(), "keys": len(keys)}) + "\n")


def repair_node(data: tuple[Path, ...], *, dry_run: bool, rebuild_index: bool, forget_missing: bool) -> int:
    """One line of JSON for each loss, and one at the end."""

    def say(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")

    async def work(node: Node) -> Outcome:
        return await repair(node, say, dry_run=dry_run)

    if not dry_run:
        lock = DataLock([path for path in data if (path / MARKER).exists()])
        try:
            for name in mend_superblocks(Host().disk, data):
                say({"mended": name})
        finally:
            lock.release()
    outcome: Outcome = _opened(data, work, rebuild=rebuild_index, forget=forget_missing and not dry_run)
    say({"dry_run": dry_run} | asdict(outcome))
    return Exit.DATA if dry_run and not outcome.sound else Exit.OK
