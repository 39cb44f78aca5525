"""Nodes for tests: bodies as a request would bring them, and a disk whose power can be cut."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from qss.host import Host, PosixDisk
from qss.host.disk import Handle
from qss.s3.backend import BodyDigests, Checksum
from qss.trove.commit import SyncMode
from qss.trove.node import Node, NodeOptions
from qss.trove.store import TroveStore


class Bytes:
    """An IncomingBody. `fails_at`: raise in place of the chunk at this offset."""

    def __init__(
        self, data: bytes, *, piece: int = 100_000, fails_at: int | None = None, checksum: Checksum | None = None
    ) -> None:
        self.data = data
        self.piece = piece
        self.fails_at = fails_at
        self.checksum = checksum

    @property
    def length(self) -> int:
        return len(self.data)

    async def chunks(self) -> AsyncIterator[memoryview]:
        for at in range(0, len(self.data), self.piece):
            if self.fails_at is not None and at >= self.fails_at:
                raise ConnectionResetError("the client went away")
            yield memoryview(self.data)[at : at + self.piece]

    def digests(self) -> BodyDigests:
        return BodyDigests(len(self.data), hashlib.md5(self.data, usedforsecurity=False).digest(), self.checksum)


class PowerCutDisk(PosixDisk):
    """The real disk, which remembers what was written and not synced, so that a power cut can lose any part of it."""

    def __init__(self) -> None:
        self._paths: dict[int, Path] = {}
        self._dirty: dict[Path, list[tuple[int, int]]] = {}
        self._synced_size: dict[Path, int] = {}

    def create(self, path: Path) -> Handle:
        handle = super().create(path)
        self._paths[handle] = path
        self._synced_size[path] = 0
        return handle

    def open(self, path: Path, *, write: bool = False) -> Handle:
        handle = super().open(path, write=write)
        self._paths[handle] = path
        self._synced_size.setdefault(path, self.size(handle))
        return handle

    def open_direct(self, path: Path) -> Handle | None:
        handle = super().open_direct(path)
        if handle is not None:
            self._paths[handle] = path
        return handle

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        written = super().pwrite(handle, parts, position)
        self._dirty.setdefault(self._paths[handle], []).append((position, written))
        return written

    def sync_data(self, handle: Handle) -> None:
        super().sync_data(handle)
        path = self._paths[handle]
        self._dirty.pop(path, None)
        self._synced_size[path] = self.size(handle)

    def cut_power(self, rng: random.Random) -> None:
        """Lose, keep or tear each unsynced write; files may end anywhere behind what was synced."""
        for path, writes in self._dirty.items():
            if not path.exists():
                continue
            with path.open("r+b") as file:
                for position, length in writes:
                    lost = rng.choice((0, length, rng.randrange(length + 1)))
                    file.seek(position + length - lost)
                    file.write(bytes(lost))
                size = max(self._synced_size[path], rng.randrange(file.seek(0, 2) + 1))
                file.truncate(size)
        self._dirty.clear()


def node(directory: Path, disk: PosixDisk | None = None, sync: SyncMode = SyncMode.GROUP) -> Node:
    return Node(NodeOptions(data=(directory,), sync=sync, host=Host(disk=disk or PosixDisk())))


def with_node(directory: Path, work: Callable[[Node], Awaitable[None]]) -> None:
    """Run `work` on a node that is opened for it, in a loop of its own."""

    async def all_of_it() -> None:
        opened = node(directory)
        try:
            await work(opened)
        finally:
            await opened.aclose()

    asyncio.run(all_of_it())


async def content(store: TroveStore, bucket: str, key: str) -> bytes:
    """An object whole."""
    reader = await store.open(bucket, key)
    try:
        return b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.info.size)])
    finally:
        await reader.aclose()


def drop_dead(dead: Node) -> None:
    """What the system does with a process that was killed: nothing is finished, handles and locks are let go."""
    engine = dead.engine
    engine._pool.shutdown(wait=True)
    engine._sync_pool.shutdown(wait=True)
    engine.index.close()
    engine.volumes.close()
    dead.ledger.close()
    dead._lock.release()
