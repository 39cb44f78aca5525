"""One mounted file system without locations, in a process of its own: `python -m tests.harness.mount_runner STATE MNT`.

Prints `ready` when it can be used. SIGTERM ends it in an orderly way. Options by --flags, see `main`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import NoReturn

import trio

from qss.app.mount_choices import fs_options, mount_options
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.config import MountSettings, with_options
from qss.formats.tables import Table
from qss.fs.filesystem import FileSystem
from qss.fuse.mount import MountOptions, serve
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.segments import Receipt


class DeadVault:
    """Locations that took everything and never answer again."""

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await trio.sleep_forever()


class Attic:
    """Locations that are a folder of whole segments. While it has a file `ID.held`, that segment does not answer;
    while somebody waits for it, there is a file `ID.wanted`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, segment: SegmentId, source: Path) -> None:
        shutil.copyfile(source, self.folder / segment_text(segment))

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        name = segment_text(segment)
        while (self.folder / f"{name}.held").exists():
            (self.folder / f"{name}.wanted").touch()
            await trio.sleep(0.02)
        with open(self.folder / name, "rb") as kept:
            kept.seek(stripe * STRIPE_BYTES)
            beside = into.with_suffix(".arriving")
            beside.write_bytes(kept.read(STRIPE_BYTES))
        os.replace(beside, into)


def broken(name: str) -> NoReturn:
    raise ZeroDivisionError(f"{name} has a mistake in it")


async def evict_on_signal(cache: SegmentCache, attic: Attic | None) -> None:
    """At SIGUSR1: everything written so far counts as safe elsewhere and is gone here; prints `evicted`."""
    places = (LocationId("nowhere"),) * 3
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            await cache.cut()
            for sealed in await cache.unsafe_segments():
                if attic is not None:
                    attic.keep(sealed.id, await cache.path_of(sealed.id))
                await cache.mark_offloaded(Receipt(sealed.id, bytes(16), 2, 1, places, sealed.length))
            await cache.evict(all_=True)
            print("evicted", flush=True)


async def tell_on_signal(fs: FileSystem, cache: SegmentCache) -> None:
    """At SIGUSR2: what is held for others, inodes, bytes of content, how often a sync was asked for; a line of JSON."""
    syncs = 0
    fsync = fs.fsync

    async def counted() -> None:
        nonlocal syncs
        syncs += 1
        await fsync()

    fs.fsync = counted  # type: ignore[method-assign]
    with trio.open_signal_receiver(signal.SIGUSR2) as signals:
        async for _ in signals:
            facts = fs.held()._asdict() | {
                "inodes": cache.count(Table.INODES),
                "live_bytes": cache.facts().live_bytes,
                "syncs": syncs,
            }
            print(json.dumps(facts), flush=True)


async def run(args: argparse.Namespace) -> None:
    host = Host()
    attic = Attic(args.attic) if args.attic else None
    vault = DeadVault() if args.dead_vault else attic
    cache = await SegmentCache.open(args.state, host, cache_options(args), vault)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            nursery.start_soon(evict_on_signal, cache, attic)
            fs = FileSystem(cache, host.clock, fs_options(settings_of(args)))
            for name in filter(None, args.broken.split(",")):
                setattr(fs, name, lambda *_, name=name: broken(name))
            nursery.start_soon(tell_on_signal, fs, cache)
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


def cache_options(args: argparse.Namespace) -> CacheOptions:
    return CacheOptions(fetch_deadline_s=args.deadline, admit_deadline_s=args.patience, seal_after_s=args.seal_after)


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
    parser.add_argument("--attic", type=Path, default=None, help="locations: an empty folder, see Attic")
    parser.add_argument("--broken", default="", help="methods of FileSystem that raise what nobody expects, by comma")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds until a read miss gets EIO")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds until a writer gets ENOSPC")
    parser.add_argument("--seal-after", type=float, default=30.0, help="seconds until a dirty log is cut")
    logging.basicConfig(level=logging.INFO)
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
