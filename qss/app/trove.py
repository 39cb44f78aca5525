"""Composition root of the storage node: one process, one event loop, volumes below and HTTP in front."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from qss.app.exits import Exit
from qss.config.find import environment
from qss.config.trove import load_trove
from qss.errors import ConfigInvalid, Refused
from qss.host import Host
from qss.host.buffers import KEPT_BYTES_LESS, keep_buffers
from qss.s3.rsgi import RsgiApp, s3_app
from qss.s3.serve import serve
from qss.s3.server import S3Service
from qss.s3.sigv4 import Verifier
from qss.trove.admin import Admin, AdminApp
from qss.trove.commit import SyncMode
from qss.trove.compaction import compact_one
from qss.trove.credentials import Credentials, Given, load_credentials
from qss.trove.node import Node, NodeOptions, clean_slate

S3_DEFAULT: Final = "127.0.0.1:9000"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line of `trove serve`."""

    data: tuple[Path, ...] = ()
    s3: str | None = None
    admin: str | None = None
    config: Path | None = None
    access_key: str | None = None
    secret_key_file: Path | None = None
    sync: str | None = None
    clean_slate: bool = False
    pid_file: Path | None = None
    as_json: bool = False


def _with_file(options: ServeOptions) -> tuple[ServeOptions, dict[str, Any]]:
    """Fill in from the configuration file what the command line leaves open. Also the node's own options from there."""
    values = load_trove(options.config) if options.config is not None else {}
    own: dict[str, Any] = {name: values.pop(name) for name in ("upload_age_s_max", "compact_garbage") if name in values}
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
    options, own = _with_file(options)
    addresses = [parse_address(each) for each in (options.s3, options.admin) if each is not None]
    data = tuple(path.absolute() for path in options.data)
    node_options = NodeOptions(data, _sync_mode(options.sync or "group"), **own)
    if options.clean_slate:
        for directory in node_options.data:
            clean_slate(directory)
    keep_buffers(KEPT_BYTES_LESS)
    host = Host()
    asyncio.run(_serve(options, node_options, addresses, host))


async def _serve(
    options: ServeOptions, node_options: NodeOptions, addresses: list[tuple[str, int]], host: Host
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node(node_options)
    try:
        given = Given(options.access_key, options.secret_key_file)
        credentials = load_credentials(node_options.data[0], given, environment(), host.entropy)
        await _run(node, options, addresses, credentials, stop)
    finally:
        await node.aclose()
        if options.pid_file is not None:
            options.pid_file.unlink(missing_ok=True)


async def _run(
    node: Node,
    options: ServeOptions,
    addresses: list[tuple[str, int]],
    credentials: Credentials,
    stop: asyncio.Event,
) -> None:
    """Listen, say so, and run until `stop` is set or a part fails."""
    admin = Admin(node, credentials.admin_token)
    apps: list[RsgiApp] = [s3_app(_service(node, credentials)), AdminApp(admin)]
    listening: list[tuple[str, int] | None] = [None for _ in addresses]

    def ready(number: int, host: str, port: int) -> None:
        listening[number] = host, port
        if all(listening):
            gc.freeze()
            admin.ready = True
            _announce(options, [each for each in listening if each is not None], credentials)

    maintain = asyncio.create_task(node.maintain(), name="trove-maintain")
    servers = [
        asyncio.create_task(serve(app, *address, stop=stop, on_ready=partial(ready, number)))
        for number, (app, address) in enumerate(zip(apps, addresses, strict=False))
    ]
    done, _ = await asyncio.wait([maintain, *servers], return_when=asyncio.FIRST_COMPLETED)
    admin.ready = False
    stop.set()
    await asyncio.gather(*servers, return_exceptions=True)
    maintain.cancel()
    for task in done:
        task.result()


def _service(node: Node, credentials: Credentials) -> S3Service:
    def secret_of(access_key: str) -> str | None:
        return credentials.secret_key if access_key == credentials.access_key else None

    host = node.options.host
    return S3Service(node.store, Verifier(secret_of), host.clock, host.entropy.token)


def _announce(options: ServeOptions, addresses: list[tuple[str, int]], credentials: Credentials) -> None:
    """Say that we listen. New credentials are shown here and never again."""
    texts = [f"{host}:{port}" for host, port in addresses]
    if options.pid_file is not None:
        options.pid_file.write_text(f"{os.getpid()}\n")
    if options.as_json:
        line: dict[str, Any] = {"event": "ready", "s3": texts[0], "pid": os.getpid()}
        line["admin"] = texts[1] if len(texts) > 1 else None
        if credentials.fresh:
            line |= {"access_key": credentials.access_key, "secret_key": credentials.secret_key}
        sys.stdout.write(json.dumps(line) + "\n")
    else:
        sys.stdout.write(f"S3 at http://{texts[0]}\n")
        if len(texts) > 1:
            sys.stdout.write(f"admin API at http://{texts[1]}\n")
        if credentials.fresh:
            sys.stdout.write(
                f"access key {credentials.access_key}\nsecret key {credentials.secret_key}\n"
                "They are shown this once and kept in credentials.json of the data directory.\n"
            )
    sys.stdout.flush()


def _opened(data: tuple[Path, ...], work: Callable[[Node], Awaitable[Any]]) -> Any:
    """Open a stopped node, do something with it, close it."""
    if not all(path.is_dir() for path in data):
        raise Refused("there is no such directory: " + ", ".join(str(path) for path in data if not path.is_dir()))

    async def all_of_it() -> Any:
        node = Node(NodeOptions(tuple(path.absolute() for path in data)))
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
        return await Admin(node, "").verify_all(None)

    result = _opened(data, work)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return Exit.DATA if result["damaged"] else Exit.OK


def compact_node(data: tuple[Path, ...]) -> None:
    async def work(node: Node) -> int:
        rounds = len(node.engine.volumes.volumes)
        return sum([await compact_one(node.engine, 0.0, 0) for _ in range(rounds)])

    sys.stdout.write(json.dumps({"freed_bytes": _opened(data, work)}) + "\n")
