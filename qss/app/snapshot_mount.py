"""The process of a mounted snapshot: read-only, beside the live mount or without one.

    main ── run ─┬─ supervisor.run     the process that fetches (qss.app.fetching)
                 ├─ cache.run          fetching ahead; what was fetched stays within bounds
                 ├─ control server     where, status, unmount
                 └─ FUSE               until it is unmounted or a signal comes

Everything it makes lies in `state/snapshots/NUMBER`, which it locks, and removes at the end; what a killed one has
left there is removed by the next.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import trio

from qss.app import fetching, mountpoint
from qss.app.daemon import Readiness
from qss.app.exits import ungrouped
from qss.app.identity import read_identity, unlocked
from qss.app.leaving import ANSWERS_S_MAX, leave_on_request, leave_on_signal
from qss.app.logs import start_logging
from qss.app.mount_choices import mount_options
from qss.app.priority import answer_soon, freeze_what_stays
from qss.app.running import state_lock, write_whole
from qss.app.shell import mount_main, mount_parser
from qss.app.snapshot_view import lay_out, patient
from qss.app.snapshots import MOUNTED, SOCKET, Cut, MountedSnapshot, find, folder_of, scratch_of
from qss.app.supervise import Supervisor
from qss.cache.frozen import FrozenCache
from qss.config import Settings
from qss.control.messages import Json
from qss.control.server import Call, Calls, Method
from qss.control.server import serve as serve_control
from qss.fs.filesystem import FileSystem, FsOptions
from qss.fuse.mount import serve
from qss.host import Host

log = logging.getLogger("qss.app.snapshot_mount")


@dataclass(slots=True, eq=False)
class Place:
    """Where this process lives, and what it is asked for."""

    settings: Settings
    cut: Cut
    mountpoint: Path
    folder: Path
    socket: Path
    asked_to_end: trio.Event = field(default_factory=trio.Event)
    calls: Calls = field(default_factory=Calls)


async def run(place: Place, readiness: Readiness, log_file: Path | None) -> None:
    """Serve the snapshot until it is unmounted or a signal asks for the end."""
    settings, folder, host = place.settings, place.folder, Host()
    fetcher = fetching.remote_fetcher(folder)
    command, first_words = fetching.child(settings, folder, log_file)
    supervisor = Supervisor("fetching", command, folder / "fetching.pid", first_words=first_words)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        index = await lay_out(settings, host, place.cut.point, folder / "view", patient(fetcher.fetch_segment))
        deadline_s = settings.cache.fetch_deadline_s
        cache = FrozenCache(host, folder / "view", index, settings.cache_dir, fetcher, fetcher, deadline_s)
        try:
            nursery.start_soon(cache.run)
            await nursery.start(serve_control, place.socket, _methods(place), place.calls)
            await _serve_fuse(FileSystem(cache, host.clock, FsOptions(read_only=True)), place, readiness)
            await supervisor.stop()
            with trio.move_on_after(ANSWERS_S_MAX):
                await place.calls.none_left()
            nursery.cancel_scope.cancel()
        finally:
            fetcher.close()
            cache.close()


async def _serve_fuse(filesystem: FileSystem, place: Place, readiness: Readiness) -> None:
    """Until somebody unmounts it, a signal comes, or the process is asked to end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_on_signal, nursery.cancel_scope)
        nursery.start_soon(leave_on_request, nursery.cancel_scope, place.asked_to_end)
        await nursery.start(_serve_until_unmounted, filesystem, place, nursery.cancel_scope)
        mounted = MountedSnapshot(place.cut.name, str(place.mountpoint), os.getpid())
        write_whole(place.folder / MOUNTED, json.dumps(asdict(mounted)) + "\n")
        log.info("the snapshot %s is mounted on %s", place.cut.name, place.mountpoint)
        freeze_what_stays()
        readiness.ready()


async def _serve_until_unmounted(
    filesystem: FileSystem,
    place: Place,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    options = mount_options(replace(place.settings.mount, read_only=True))
    await serve(filesystem, place.mountpoint, options, task_status=task_status)
    scope.cancel()


def _methods(place: Place) -> Mapping[str, Method]:
    """The method table of its socket."""

    async def where(_call: Call) -> Json:
        return {"mountpoint": str(place.mountpoint), "pid": os.getpid(), "snapshot": place.cut.name}

    async def status(call: Call) -> Json:
        facts = {"created_ns": place.cut.point.cut_ns, "state": str(place.settings.state), "at_risk_bytes": 0}
        return await where(call) | facts

    async def unmount(call: Call) -> Json:
        if mountpoint.mounted_type(place.mountpoint) is not None:
            lazy = bool(call.params.get("lazy"))
            await trio.to_thread.run_sync(lambda: mountpoint.unmount(place.mountpoint, lazy=lazy))
        place.asked_to_end.set()
        return await where(call) | {"at_risk_bytes": 0}

    return {"where": where, "status": status, "unmount": unmount}


def main(arguments: list[str] | None = None, settings: Settings | None = None) -> int:
    """As qss.app.shell.mount_main."""
    parser = mount_parser("qss-snapshot-mount")
    parser.add_argument("--name", help="[the snapshot that was recovered here]")
    given = parser.parse_args(arguments)

    def live(settings: Settings, readiness: Readiness) -> int:
        start_logging(settings.log, "snapshot", given.log_file)
        settings = unlocked(settings)
        with ExitStack() as held:
            identity = read_identity(settings.state)
            recovered = identity is not None and bool(identity.snapshot)
            if recovered:
                held.enter_context(state_lock(settings.state))
            cut = find(settings, given.name)
            folder = folder_of(settings, cut.number)
            held.enter_context(scratch_of(folder, cut.name))
            mountpoint.prepare(given.mountpoint)
            socket = settings.mount_socket if recovered else folder / SOCKET
            with ungrouped():
                answer_soon()
                trio.run(run, Place(settings, cut, given.mountpoint, folder, socket), readiness, given.log_file)
        return 0

    return mount_main(given, settings, live)


if __name__ == "__main__":
    sys.exit(main())
