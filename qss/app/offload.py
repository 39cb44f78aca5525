"""The offload process: courier and vault between the mount process and the locations.

    main ── run_offload ─┬─ leave_with_parent   ends everything when the mount process is gone
                         ├─ courier.run         uploads, publishes roots, repairs, watches the locations
                         ├─ mover.run           shards of locations that are drained or gone
                         ├─ reload_on_signal    SIGHUP: the locations of the configuration file
                         ├─ seal watch          hints of the mount process; only hints
                         ├─ teller              events for the hooks of the mount process
                         └─ control server      run/offload.sock

It may be killed at any moment: what is sealed and not yet safe is a question to the shelf.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import trio

from qss.app.carriers import RemoteShelf, vault_methods
from qss.app.exits import exit_of
from qss.app.identity import check_key
from qss.app.location_methods import LocationMethods
from qss.app.location_set import LocationSet, root_locations
from qss.app.logs import start_logging
from qss.app.seal_watch import SealWatch
from qss.app.secrecy import KEY_ON_STDIN, no_core_dumps, received
from qss.app.teller import Teller
from qss.app.upkeep_methods import repair_facts, upkeep_methods
from qss.config import Settings, environment, load
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.control.server import serve as serve_control
from qss.errors import QssError
from qss.host import Host
from qss.host.buffers import KEPT_BYTES_LESS, keep_buffers
from qss.ids import LocationId
from qss.offload.courier import Courier
from qss.offload.keys import FsKeys
from qss.offload.mover import Mover, Progress
from qss.offload.nodes import NodeFacts, Nodes, jitter_from
from qss.offload.roots import RootBook, Roots
from qss.offload.vault import Vault

log = logging.getLogger("qss.app.offload")


async def run_offload(settings: Settings, keys: FsKeys) -> None:
    """Until the mount process goes away, or a signal comes."""
    host = Host()
    mount = ControlClient(settings.mount_socket)
    places = LocationSet(settings, host)
    try:
        teller = Teller(mount)
        vault, courier, roots = _put_together(settings, keys, places.nodes, host, mount, teller)
        mover = Mover(RemoteShelf(mount), vault, courier.claim, settings.offload.move_bytes_per_s)
        mover.may_run = lambda: courier.may_change
        changes = LocationMethods(places, vault, roots, courier, mover)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_with_parent, nursery.cancel_scope)
            nursery.start_soon(leave_on_signal, nursery.cancel_scope)
            nursery.start_soon(changes.reload_on_signal)
            watch = SealWatch(mount, host.clock, courier.hint)
            nursery.start_soon(watch.run)
            nursery.start_soon(teller.run)
            nursery.start_soon(mover.run)
            methods = {**_methods(vault, courier, watch, mover), **changes.table()}
            await nursery.start(serve_control, settings.offload_socket, methods)
            await courier.run()
    finally:
        with trio.CancelScope(shield=True):
            await places.aclose()


def make_roots(settings: Settings, keys: FsKeys, nodes: Nodes, host: Host) -> Roots:
    """The roots of this file system, as this machine writes them."""
    return Roots(
        RootBook(nodes, keys, host),
        keys,
        host,
        settings.offload_dir,
        (settings.offload.k, settings.offload.m),
        root_locations(settings.locations),
        f"qss {version('qss')}",
    )


def _put_together(
    settings: Settings, keys: FsKeys, nodes: Nodes, host: Host, mount: ControlClient, teller: Teller
) -> tuple[Vault, Courier, Roots]:
    async def on_location(location: LocationId, up: bool) -> None:
        log.warning("location %s is %s", location, "up" if up else "down")
        teller.tell("location-up" if up else "location-down", {"location": location})

    def on_sent(count: int) -> None:  # the courier is made after the vault that tells it
        courier.on_sent(count)

    vault = Vault(nodes, keys, settings.offload, host, settings.offload_dir, on_sent=on_sent)
    vault.on_short = teller.short
    roots = make_roots(settings, keys, nodes, host)
    courier = Courier(
        RemoteShelf(mount), vault, roots, jitter_from(host.entropy), on_stored=teller.stored, on_location=on_location
    )
    return vault, courier, roots


async def leave_with_parent(scope: trio.CancelScope) -> None:
    """Standard input is a pipe that the mount process holds; its end, however it came, is ours."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(1024):
            pass
    log.info("the mount process is gone")
    scope.cancel()


async def leave_on_signal(scope: trio.CancelScope) -> None:
    """SIGTERM and SIGINT end everything in the scope."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def _methods(vault: Vault, courier: Courier, watch: SealWatch, mover: Mover) -> Mapping[str, Method]:
    """The method table of run/offload.sock."""

    async def status(_call: Call) -> Json:
        facts = courier.status()
        return {
            "offload": {
                "queued": facts.queued,
                "queued_bytes": facts.queued_bytes,
                "in_flight": len(facts.in_flight),
                "uploaded_bytes": facts.uploaded_bytes,
                "upload_bytes_per_s": facts.upload_bytes_per_s,
                "stored_segments": facts.stored_segments,
                "deleted_segments": facts.deleted_segments,
                "incomplete_segments": len(facts.incomplete),
                "buffers_bytes": facts.buffers_bytes,
                "wakes": watch.wakes,
                "wake_s_last": watch.wake_s_last,
                "wake_s_max": watch.wake_s_max,
                "root_generation": facts.root_generation,
                "root_created_ns": facts.root_created_ns,
                "root_behind": facts.root_behind,
            },
            "damage": {
                "found": facts.damaged_blocks_seen,
                "open": [[each.segment, each.shard, each.location] for each in facts.damaged],
                "repaired": facts.shards_repaired,
            },
            "repair": repair_facts(courier),
            "locations": [_location_to_json(each, mover.facts.left.get(each.location)) for each in facts.nodes],
            "errors": [line for line in (facts.blocked, facts.last_error) if line],
        }

    return {**vault_methods(vault), **upkeep_methods(vault, courier, courier.shelf), "status": status}


def _location_to_json(facts: NodeFacts, left: Progress | None) -> Json:
    return {
        "name": facts.location,
        "up": facts.up,
        "draining": facts.draining,
        "shards_left": left.shards if left is not None else None,
        "bytes_left": left.bytes if left is not None else None,
        "denied": facts.denied,
        "latency_s": facts.health.latency_s,
        "error_rate": facts.health.error_rate,
        "last_error": facts.health.last_error,
        "labels": dict(facts.labels),
        "bytes_up": facts.bytes_up,
        "bytes_down": facts.bytes_down,
        "requests": facts.requests,
        "retries": facts.retries,
        "errors": facts.errors,
        "in_flight": facts.in_flight,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="qss-offload")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--log-file", type=Path)
    parser.add_argument(KEY_ON_STDIN, action="store_true")
    given = parser.parse_args(arguments)
    try:
        no_core_dumps()
        settings = received(load(given.config, environment()), on_stdin=given.key_on_stdin)
        start_logging(settings.log, "offload", given.log_file)
        keys = FsKeys.derive(check_key(settings))
        keep_buffers(KEPT_BYTES_LESS)
        gc.freeze()  # what is imported stays: no need to look at it again and again
        trio.run(run_offload, settings, keys)
    except QssError as error:
        log.error("%s", error)
        return exit_of(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
