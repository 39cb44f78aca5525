"""Composition root of the storage node: one process, one event loop, volumes below and HTTP in front."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.config.find import environment
from qss.errors import ConfigInvalid
from qss.host import Host
from qss.trove.commit import SyncMode
from qss.trove.credentials import Given, load_credentials
from qss.trove.node import Node, NodeOptions, clean_slate

STOP_S_MAX: Final = 5.0
"""How long requests under way may take after SIGTERM."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The command line of `trove serve`."""

    data: tuple[Path, ...]
    s3: str
    admin: str | None = None
    config: Path | None = None
    access_key: str | None = None
    secret_key_file: Path | None = None
    sync: str = "group"
    clean_slate: bool = False
    pid_file: Path | None = None
    as_json: bool = False


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
    addresses = [parse_address(each) for each in (options.s3, options.admin) if each is not None]
    node_options = NodeOptions(tuple(path.absolute() for path in options.data), _sync_mode(options.sync))
    if options.clean_slate:
        for directory in node_options.data:
            clean_slate(directory)
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
