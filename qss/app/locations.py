"""The configured locations as Nodes: one S3 client each, with limits, deadlines, retries and a breaker around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from qss.config import Settings
from qss.errors import ConfigInvalid
from qss.host import Host
from qss.offload.nodes import Node, Nodes, jitter_from
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.timetable import Timed
from qss.s3.client import ClientOptions, S3Client
from qss.s3.store import ObjectStore
from qss.s3.transport import TlsFiles


def secret_of(options: LocationOptions) -> str:
    """The secret key, from its file if it is in one. Raises ConfigInvalid."""
    path: Path | None = options.secret_file
    if path is None:
        return options.secret_key
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"the secret of location {options.name} cannot be read from {path}") from error
    return lines[0].strip() if lines else ""


def place_of(options: LocationOptions) -> str:
    """Where it is, with nothing secret: `http://host:port/bucket/prefix`."""
    return f"{options.endpoint}/{options.bucket}" + (f"/{options.prefix}" if options.prefix else "")


def client_of(options: LocationOptions, host: Host) -> S3Client:
    """Connects when it is first used. Raises ConfigInvalid."""
    return S3Client(
        options.endpoint,
        options.bucket,
        access_key=options.access_key,
        secret_key=secret_of(options),
        clock=host.clock,
        region=options.region,
        prefix=f"{options.prefix}/" if options.prefix else "",
        options=ClientOptions(tls=TlsFiles(options.ca_file, options.client_cert, options.client_key)),
    )


def timed(store: ObjectStore, offload: OffloadOptions, host: Host) -> ObjectStore:
    """The store, as fast as the schedule allows, if there is one."""
    if offload.timetable is None:
        return store
    return Timed(store, offload.timetable, lambda: datetime.fromtimestamp(host.clock.now_ns() / 1e9))  # local time


def patient(settings: Settings) -> OffloadOptions:
    """A deadline for PUTs that a shard keeps at the slowest hour of the schedule."""
    offload = settings.offload
    slowest = offload.timetable.slowest_upload if offload.timetable else None
    if slowest is None:
        return offload
    shard = settings.cache.segment_bytes / offload.k
    return replace(offload, put_deadline_s=offload.put_deadline_s + offload.in_flight_per_location * shard / slowest)


def node_of(
    options: LocationOptions, store: ObjectStore, settings: Settings, host: Host, jitter: Callable[[], float]
) -> Node:
    """A location with its manners: limits, deadlines, retries, breaker."""
    return Node(options, timed(store, settings.offload, host), patient(settings), jitter)


@asynccontextmanager
async def open_nodes(settings: Settings, host: Host) -> AsyncIterator[Nodes]:
    """Every configured location; closed at the end. Asks none of them anything."""
    jitter = jitter_from(host.entropy)
    async with AsyncExitStack() as stack:
        nodes = []
        for options in settings.locations:
            client = client_of(options, host)
            stack.push_async_callback(client.aclose)
            nodes.append(node_of(options, client, settings, host, jitter))
        yield Nodes(nodes)
