"""The mount process: cache, file system, FUSE, control socket, user hooks; supervises the offload process.

    main ── run_mount ─┬─ cache.run            checkpoints, seals, eviction
                       ├─ relay_seals          tells offload and the hooks of new sealed segments
                       ├─ control server       run/mount.sock
                       ├─ hooks.run            user hooks, a few at a time
                       ├─ timetable.run        snapshots by schedule
                       ├─ unreadable.run       what readers got EIO for: whose it is, and is it back?
                       ├─ keep_track           what a recovery has found lost
                       ├─ supervisor.run       the offload process
                       └─ FUSE and fs.run      until it is unmounted or a signal comes

The end, in this order: the mount is taken away (nothing new comes in), a cut, a bounded time for offload to bring it
away, offload stops, the last hooks run, the cache is closed, pid file and lock go.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from qss.app import mountpoint as places
from qss.app.carriers import RemoteVault
from qss.app.checkpoint import maker
from qss.app.daemon import Readiness
from qss.app.exits import ungrouped
from qss.app.hooks import UserHooks
from qss.app.identity import read_identity, unlocked
from qss.app.leaving import ANSWERS_S_MAX, leave_on_request, leave_on_signal
from qss.app.logs import start_logging
from qss.app.losses import keep_track
from qss.app.mount_choices import fs_options, mount_options
from qss.app.mount_methods import MountProcess, methods
from qss.app.priority import answer_soon, freeze_what_stays
from qss.app.running import is_held, leaving_path, offload_pid_path, pid_file, state_lock
from qss.app.secrecy import handed_over
from qss.app.shell import mount_main, mount_parser
from qss.app.snapshots import LOCK, folder_of, schedule_of, sweep
from qss.app.supervise import Supervisor
from qss.app.timetable import Timetable
from qss.cache.store import SegmentCache
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.server import serve as serve_control
from qss.errors import NoSpace, QssError
from qss.fs.filesystem import FileSystem
from qss.fs.keeping import Keeping
from qss.fuse.mount import serve
from qss.fuse.operations import Operations
from qss.host import Host
from qss.offload.fence import read_reason

HOOKS_END_S_MAX: Final = 30.0

log = logging.getLogger("qss.app.mount")


async def run_mount(settings: Settings, mountpoint: Path, readiness: Readiness, log_file: Path | None) -> None:
    """Serve the file system until it is unmounted or a signal asks for the end. The caller holds the lock."""
    host = Host()
    vault_client = ControlClient(settings.offload_socket)
    command, first_words = _offload_child(settings, log_file)
    cache = await SegmentCache.open(
        settings.cache_dir, host, settings.cache, RemoteVault(vault_client), maker(settings.cache.index_map_bytes)
    )
    try:
        cache.eviction.set_retention(settings.cache.retention)  # what is configured holds, whatever was set before
        keeping = cache.eviction.guard = Keeping(cache, host.clock)
        process = MountProcess(
            settings=settings,
            mountpoint=mountpoint,
            cache=cache,
            offload=vault_client,
            supervisor=Supervisor(
                "offload", command, offload_pid_path(settings.run_dir), settings.offload.nice, first_words
            ),
            hooks=UserHooks(settings.hooks, host.clock),
            keeping=keeping,
            clock=host.clock,
            started_ns=host.clock.now_ns(),
        )
        mount = settings.mount
        filesystem = FileSystem(cache, host.clock, fs_options(mount))
        cache.tell_moved(filesystem.invalidate)
        process.fence_off(read_reason(settings.offload_dir / "fenced.json"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            nursery.start_soon(process.hooks.run)
            nursery.start_soon(process.relay_seals)
            if not mount.read_only and not process.fenced:
                nursery.start_soon(_timetable(cache, settings, host).run)
            nursery.start_soon(process.unreadable.run)
            nursery.start_soon(keep_track, settings, cache, process.unreadable)
            nursery.start_soon(_read_only_once_fenced, process, filesystem)
            await nursery.start(serve_control, settings.mount_socket, methods(process), process.calls)
            await nursery.start(process.supervisor.run)
            await _serve_fuse(filesystem, process, readiness)
            await _wind_down(process)
            nursery.cancel_scope.cancel()
    finally:
        vault_client.close()
        with trio.CancelScope(shield=True):
            try:
                await cache.close()
            except NoSpace as error:
                log.warning("the cache is closed without its last seal: %s", error)


async def _read_only_once_fenced(process: MountProcess, filesystem: FileSystem) -> None:
    await process.fenced_off.wait()
    filesystem.turn_read_only()


def _timetable(cache: SegmentCache, settings: Settings, host: Host) -> Timetable:
    return Timetable(
        cache,
        host.clock,
        lambda: schedule_of(cache, settings),
        lambda number: is_held(folder_of(settings, number) / LOCK),
    )


async def _serve_fuse(filesystem: FileSystem, process: MountProcess, readiness: Readiness) -> None:
    """Until somebody unmounts it, a signal comes, or the process is asked to end."""

    async def until_unmounted(*, task_status: trio.TaskStatus[Operations]) -> None:
        await serve(filesystem, process.mountpoint, options, task_status=task_status)
        nursery.cancel_scope.cancel()

    options = mount_options(process.settings.mount)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave_on_signal, nursery.cancel_scope)
        nursery.start_soon(leave_on_request, nursery.cancel_scope, process.asked_to_end)
        await nursery.start(until_unmounted)
        log.info("mounted on %s", process.mountpoint)
        freeze_what_stays()
        readiness.ready()
        process.hooks.post("ready", {"mountpoint": str(process.mountpoint)})


async def _wind_down(process: MountProcess) -> None:
    """Bring away what can be in the time there is, and say what is still at risk. Who mounts meanwhile waits for it."""
    with pid_file(leaving_path(process.settings.run_dir)):
        await _bring_away(process)


async def _bring_away(process: MountProcess) -> None:
    if not process.settings.mount.read_only:  # else nothing came in: nothing to wait for
        try:
            journal = await process.cache.cut()
            with trio.move_on_after(0.0 if process.fenced else process.drain_s):
                await process.cache.wait_published(journal)
        except (QssError, OSError) as error:  # a full disk, a disk that fails: what is in the logs stays there
            log.warning("what was written last could not be sealed: %s", error)
    process.left_bytes = process.at_risk_bytes
    if process.left_bytes:
        log.warning("%d bytes are only on this machine; they are offloaded after the next mount", process.left_bytes)
    await process.supervisor.stop()
    process.hooks.post("close", {"at_risk_bytes": process.left_bytes})
    process.hooks.finish()
    with trio.move_on_after(HOOKS_END_S_MAX):
        await process.hooks.finished.wait()
    process.ended.set()
    with trio.move_on_after(ANSWERS_S_MAX):
        await process.calls.none_left()


def _offload_child(settings: Settings, log_file: Path | None) -> tuple[list[str], bytes]:
    """Its command, and what it is told first."""
    command = [sys.executable, "-m", "qss.app.offload", "--config", str(settings.source)]
    key, first_words = handed_over(settings)
    return [*command, *key, *(["--log-file", str(log_file)] if log_file else [])], first_words


def main(arguments: list[str] | None = None, settings: Settings | None = None) -> int:
    """As qss.app.shell.mount_main."""
    given = mount_parser("qss-mount").parse_args(arguments)

    def live(settings: Settings, readiness: Readiness) -> int:
        identity = read_identity(settings.state)
        if identity is not None and identity.snapshot:  # nothing else was recovered here
            from qss.app import snapshot_mount  # needs a client of the locations, which this process is not

            return snapshot_mount.main(arguments, settings)
        start_logging(settings.log, "mount", given.log_file)
        with ExitStack() as held:
            settings = unlocked(settings)
            held.enter_context(state_lock(settings.state))
            sweep(settings)
            places.prepare(given.mountpoint)
            held.enter_context(pid_file(settings.run_dir / "mount.pid"))
            answer_soon()
            with ungrouped():
                trio.run(run_mount, settings, given.mountpoint, readiness, given.log_file)
        return 0

    return mount_main(given, settings, live)


if __name__ == "__main__":
    sys.exit(main())
