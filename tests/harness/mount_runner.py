"""One mounted file system without locations, in a process of its own: `python -m tests.harness.mount_runner STATE MNT`.

Prints `ready` when it can be used. SIGTERM ends it in an orderly way. Options by --flags, see `main`.
"""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path

import trio

from qss.app.mount_choices import mount_options
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.config import MountSettings, with_options
from qss.fs.filesystem import FileSystem, FsOptions
from qss.fs.quota import Quota
from qss.fuse.mount import MountOptions, serve
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo
from qss.segments import Receipt


class DeadVault:
    """Locations that took everything and never answer again."""

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await trio.sleep_forever()


async def evict_on_signal(cache: SegmentCache) -> None:
    """At SIGUSR1: everything written so far counts as safe elsewhere and is gone here; prints `evicted`."""
    places = (LocationId("nowhere"),) * 3
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            await cache.cut()
            for sealed in await cache.unsafe_segments():
                await cache.mark_offloaded(Receipt(sealed.id, bytes(16), 2, 1, places, sealed.length))
            await cache.evict(all_=True)
            print("evicted", flush=True)


async def run(args: argparse.Namespace) -> None:
    host = Host()
    vault = DeadVault() if args.dead_vault else None
    cache = await SegmentCache.open(args.state, host, CacheOptions(fetch_deadline_s=args.deadline), vault)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            nursery.start_soon(evict_on_signal, cache)
            mount = settings_of(args)
            quota = Quota(mount.quota_bytes, mount.quota_inodes)
            fs = FileSystem(cache, host.clock, FsOptions(mount.read_only, mount.atime, quota=quota))
            nursery.start_soon(_until_signal, nursery.cancel_scope)
            nursery.start_soon(_serve, fs, args, nursery.cancel_scope)
    finally:
        with trio.CancelScope(shield=True):
            await cache.close()


async def _serve(fs: FileSystem, args: argparse.Namespace, scope: trio.CancelScope) -> None:
    options = mount_options(settings_of(args))
    async with trio.open_nursery() as nursery:
        await nursery.start(_start, fs, args.mountpoint, options)
        print("ready", flush=True)
    scope.cancel()


def settings_of(args: argparse.Namespace) -> MountSettings:
    flags = [args.o, "ro" if args.ro else "", "writeback_cache" if args.writeback else ""]
    return with_options(MountSettings(), ",".join(flags))


async def _start(fs: FileSystem, mountpoint: Path, options: MountOptions, *, task_status) -> None:
    await serve(fs, mountpoint, options, task_status=task_status)


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--ro", action="store_true")
    parser.add_argument("-o", default="", help="as mount(8)")
    parser.add_argument("--writeback", action="store_true")
    parser.add_argument("--dead-vault", action="store_true")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds until a read miss gets EIO")
    logging.basicConfig(level=logging.INFO)
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
