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

import gc
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Final

import trio

from qss.app.carriers import RemoteShelf, vault_methods
from qss.app.exits import ungrouped
from qss.app.identity import check_key
from qss.app.leaving import leave_on_signal, leave_with_parent
from qss.app.location_methods import LocationMethods
from qss.app.location_set import LocationSet, root_locations
from qss.app.running import last_words_path, offload_pid_path, write_whole
from qss.app.seal_watch import SealWatch
from qss.app.seat import hold_of, name_of_seat
from qss.app.shell import child_main, child_parser
from qss.app.teller import Teller
from qss.app.upkeep_methods import repair_facts, upkeep_methods
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.control.server import serve as serve_control
from qss.errors import QssError
from qss.host import Host
from qss.host.buffers import KEPT_BYTES_LESS, keep_buffers
from qss.ids import LocationId
from qss.offload.courier import Courier
from qss.offload.fence import Fence
from qss.offload.hold import HoldBook, Holder
from qss.offload.keys import FsKeys
from qss.offload.mover import Mover, Progress
from qss.offload.nodes import NodeFacts, Nodes, jitter_from
from qss.offload.root_history import HistoryBook
from qss.offload.roots import RootBook, Roots
from qss.offload.status import silent_majority
from qss.offload.tenure import Tenure
from qss.offload.vault import Vault

log = logging.getLogger("qss.app.offload")

FENCE_TOLD_S: Final = 5.0


async def run_offload(settings: Settings, keys: FsKeys) -> None:
    """Until the mount process goes away, or a signal comes."""
    host = Host()
    mount = ControlClient(settings.mount_socket)
    places = LocationSet(settings, host)
    try:
        teller = Teller(mount)
        tenure = Tenure(Fence(settings.offload_dir))
        vault, courier, roots = _put_together(settings, keys, places.nodes, host, mount, teller, tenure)
        mover = Mover(RemoteShelf(mount), vault, tenure, courier.claim, settings.offload.move_bytes_per_s)
        changes = LocationMethods(places, vault, roots, courier, mover)
        mover.rebuild = courier.mender.give_up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_with_parent, nursery.cancel_scope)
            nursery.start_soon(leave_on_signal, nursery.cancel_scope)
            nursery.start_soon(changes.reload_on_signal)
            watch = SealWatch(mount, host.clock, courier.hint)
            nursery.start_soon(watch.run)
            nursery.start_soon(teller.run)
            ours = hold_of(settings, roots.known, host)
            holder = Holder(HoldBook(places.nodes, keys, host), tenure, host, ours, lambda: roots.known.generation)
            nursery.start_soon(_guard, tenure.fence, teller, holder)
            nursery.start_soon(mover.run)
            methods = {**_methods(vault, courier, watch, mover), **changes.table()}
            await nursery.start(serve_control, settings.offload_socket, methods)
            last_words_path(offload_pid_path(settings.run_dir)).unlink(missing_ok=True)
            await courier.run()
    finally:
        with trio.CancelScope(shield=True):
            await places.aclose()


async def _guard(fence: Fence, teller: Teller, holder: Holder) -> None:
    """Hold the file system; once the fence is up, tell the mount process, until it knows."""
    await holder.run()
    while True:
        teller.tell("fenced", {"reason": fence.reason})
        await trio.sleep(FENCE_TOLD_S)


def make_roots(settings: Settings, keys: FsKeys, nodes: Nodes, host: Host) -> Roots:
    """The roots of this file system, as this machine writes them."""
    history_s = settings.offload.history_s
    return Roots(
        HistoryBook(nodes, keys, host, history_s) if history_s else RootBook(nodes, keys, host),
        keys,
        host,
        settings.offload_dir,
        (settings.offload.k, settings.offload.m),
        root_locations(settings.locations),
        f"qss {version('qss')} at {name_of_seat(settings)}",
    )


def _put_together(
    settings: Settings, keys: FsKeys, nodes: Nodes, host: Host, mount: ControlClient, teller: Teller, tenure: Tenure
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
        RemoteShelf(mount),
        vault,
        roots,
        tenure,
        jitter_from(host.entropy),
        on_stored=teller.stored,
        on_location=on_location,
    )
    tenure.fence.tell(lambda reason: teller.tell("fenced", {"reason": reason}))
    return vault, courier, roots


def _methods(vault: Vault, courier: Courier, watch: SealWatch, mover: Mover) -> Mapping[str, Method]:
    """The method table of run/offload.sock."""

    async def status(_call: Call) -> Json:
        facts = courier.status()
        up = [each.up for each in facts.nodes]
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
            "errors": [line for line in (facts.blocked, silent_majority(up), facts.last_error) if line],
        }

    return {**vault_methods(vault), **upkeep_methods(vault, courier, courier.shelf), "status": status}


def _location_to_json(facts: NodeFacts, left: Progress | None) -> Json:
    return {
        "name": facts.location,
        "up": facts.up,
        "draining": facts.draining,
        "metered": facts.metered,
        "free_bytes": facts.free_bytes,
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
    def live(settings: Settings) -> None:
        try:
            keys = FsKeys.derive(check_key(settings))
            keep_buffers(KEPT_BYTES_LESS)
            gc.freeze()  # what is imported stays: no need to look at it again and again
            with ungrouped():
                trio.run(run_offload, settings, keys)
        except QssError as error:
            with suppress(OSError):
                write_whole(last_words_path(offload_pid_path(settings.run_dir)), f"{error}\n", 0o600)
            raise

    return child_main(child_parser("qss-offload").parse_args(arguments), "offload", live)


if __name__ == "__main__":
    sys.exit(main())
