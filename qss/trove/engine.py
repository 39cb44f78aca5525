"""What every writing operation of the node goes through: take a body, decide, write, commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from qss.formats.volume import BODY_BYTES_MAX, EtagKind, Footer, Header, Kind, hash_blocks, root_of
from qss.host import Clock, Entropy
from qss.limits import KIB, MIB
from qss.s3.backend import BodyDigests, IncomingBody
from qss.s3.errors import Code, S3Error
from qss.trove.commit import Committer, SyncMode
from qss.trove.facts import WITH_BODY, Fact
from qss.trove.index import Index
from qss.trove.meta import LATE_ROOM_BYTES, encode_late
from qss.trove.slots import Piece, Slot
from qss.trove.volumes import SMALL_BODY_BYTES_MAX, VolumeSet
from qss.values import quick

T = TypeVar("T")

INLINE_BYTES_MAX: Final = 256 * KIB
"""Up to here hashing and copying cost less than a hop to a thread and back."""
UNKNOWN_LENGTH_BYTES_MAX: Final = 16 * MIB
POOL_THREADS: Final = 3


@quick
@dataclass(frozen=True, slots=True)
class Draft:
    """A record about to be written. `decide` runs in the same step as the commit; it raises to refuse.

    What it returns says whether the record is a version of its own; where nothing decides, `numbered` does.
    """

    kind: Kind
    key: bytes
    meta: bytes = b""
    decide: Callable[[], bool | None] | None = None
    after: tuple[bytes, ...] = ()  # record keys the decision depends on: their commits under way are waited for
    numbered: bool = False  # also: what a long body is begun with
    sealed: bool = False  # the body comes encrypted

    def as_sealed(self, meta: bytes) -> Draft:
        """For an encrypted body, with this metadata."""
        return replace(self, meta=meta, sealed=True)


class Engine:
    """Volumes, index, committer and threads of one node. Lives on one event loop."""

    def __init__(self, volumes: VolumeSet, index: Index, clock: Clock, entropy: Entropy, mode: SyncMode) -> None:
        self.volumes = volumes
        self.index = index
        self.clock = clock
        self.entropy = entropy
        self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="trove-io")
        self._sync_pool = ThreadPoolExecutor(1, thread_name_prefix="trove-sync")
        self.committer = Committer(volumes, index, mode, self._sync_pool)
        self._version = 0

    def start_after(self, version: int) -> None:
        """Versions given from now on are higher than this one."""
        self._version = max(self._version, version)

    def tick(self) -> int:
        """A version: the wall clock in nanoseconds, but always higher than the one before."""
        self._version = max(self._version + 1, self.clock.now_ns())
        return self._version

    async def in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def checkpoint(self) -> None:
        """Make the index survive a power cut as it is now."""
        await asyncio.get_running_loop().run_in_executor(self._sync_pool, self.index.checkpoint)

    async def note(self, draft: Draft, body: bytes = b"", etag: bytes = bytes(16)) -> Fact:
        """Write and commit a record whose bytes are all here."""
        kind = EtagKind.COMPOSITE if draft.kind == Kind.COMPOSITE else EtagKind.NONE
        return await self._commit_small(draft, body, hash_blocks(body), lambda _: (etag, kind, b""))

    async def take(self, draft: Draft, body: IncomingBody) -> Fact:
        """Write and commit a record with the bytes of a request. On an error or a cancellation nothing of it shows."""
        length = body.length
        if length is not None and length > BODY_BYTES_MAX:
            raise S3Error(Code.ENTITY_TOO_LARGE)
        if length is None or length <= SMALL_BODY_BYTES_MAX:
            data = await _gather(body, length)
            table = hash_blocks(data) if len(data) < INLINE_BYTES_MAX else await self.in_pool(hash_blocks, data)
            digests = body.digests()
            return await self._commit_small(draft, data, table, lambda table: _etag(digests, table))
        return await self._commit_stream(draft, body, length)

    async def _commit_small(
        self,
        draft: Draft,
        body: bytes,
        table: bytes,
        etag_of: Callable[[bytes], tuple[bytes, EtagKind, bytes]],
    ) -> Fact:
        etag, etag_kind, late = etag_of(table)
        if draft.after:
            await self.committer.quiet(*draft.after)
        numbered = draft.numbered if draft.decide is None else draft.decide() or False
        version = self.tick()
        header = Header(
            draft.kind,
            draft.key,
            version,
            meta=draft.meta,
            body_len=len(body),
            late_room=len(late),
            numbered=numbered,
            sealed=draft.sealed,
        )
        footer = Footer(version, etag=etag, etag_kind=etag_kind, late=late, numbered=numbered)
        volume, place = self.volumes.append(header, body, table, footer)
        fact = Fact(
            draft.kind,
            draft.key,
            version,
            place,
            meta=draft.meta,
            body_at=header.body_at,
            size=len(body),
            etag=etag,
            etag_kind=etag_kind,
            late=late,
            body=body if draft.kind in WITH_BODY else b"",
            numbered=numbered,
            sealed=draft.sealed,
        )
        await asyncio.shield(self.committer.submit(volume, fact))
        return fact

    async def _commit_stream(self, draft: Draft, body: IncomingBody, length: int) -> Fact:
        header = Header(
            draft.kind,
            draft.key,
            self.tick(),
            meta=draft.meta,
            body_len=length,
            late_room=LATE_ROOM_BYTES,
            numbered=draft.numbered,
            sealed=draft.sealed,
        )
        slot = self.volumes.begin(header)
        try:
            await self._fill(slot, body)
            etag, etag_kind, late = _etag(body.digests(), bytes(slot.table))
            if draft.after:
                await self.committer.quiet(*draft.after)
            numbered = draft.numbered if draft.decide is None else draft.decide() or False
            version = self.tick()
            footer = Footer(version, etag=etag, etag_kind=etag_kind, late=late, numbered=numbered)
            self.volumes.finish(slot, footer)
        except BaseException:
            self.volumes.void(slot)
            raise
        fact = Fact(
            draft.kind,
            draft.key,
            version,
            slot.place,
            meta=draft.meta,
            body_at=header.body_at,
            size=length,
            etag=etag,
            etag_kind=etag_kind,
            late=late,
            numbered=numbered,
            sealed=draft.sealed,
        )
        await asyncio.shield(self.committer.submit(slot.volume, fact))
        return fact

    async def _fill(self, slot: Slot, body: IncomingBody) -> None:
        """Receive one piece while the one before is hashed and written: two buffers, whatever the length."""
        writing: asyncio.Future[None] | None = None
        piece: Piece | None = None
        try:
            async for chunk in body.chunks():
                rest = memoryview(chunk)
                while rest:
                    piece = piece or slot.piece()
                    rest = piece.take(rest)
                    if piece.full:
                        if writing is not None:
                            await _through(writing)
                        writing = asyncio.ensure_future(self.in_pool(slot.write, piece))
                        piece = None
        finally:
            if writing is not None:
                await _through(writing)
        if piece is not None:
            await _through(asyncio.ensure_future(self.in_pool(slot.write, piece)))

    def _stop_volumes(self) -> None:
        self.volumes.stop()
        with self.index.write() as tables:
            for volume in self.volumes.volumes.values():
                tables.set_low(volume.number, volume.low)

    async def aclose(self) -> None:
        """Finish what is under way, and leave an index that the next start trusts."""
        await self.committer.idle()
        self._stop_volumes()
        await self.checkpoint()
        self._pool.shutdown()
        self._sync_pool.shutdown()
        self.index.close()
        self.volumes.close()


async def _through(writing: asyncio.Future[None]) -> None:
    """Wait for a write in a thread even when we are cancelled: its bytes must not land after the slot is given up."""
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


async def _gather(body: IncomingBody, length: int | None) -> bytes:
    limit = UNKNOWN_LENGTH_BYTES_MAX if length is None else length
    parts: list[bytes] = []
    size = 0
    async for chunk in body.chunks():
        size += len(chunk)
        if size > limit:
            raise S3Error(Code.MISSING_CONTENT_LENGTH)
        parts.append(bytes(chunk))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def room_for(body: IncomingBody) -> int:
    """The most bytes that `take` would store of it."""
    return UNKNOWN_LENGTH_BYTES_MAX if body.length is None else body.length


def _etag(digests: BodyDigests, table: bytes) -> tuple[bytes, EtagKind, bytes]:
    late = encode_late(digests.checksum)
    if digests.md5 is not None:
        return digests.md5, EtagKind.MD5, late
    return root_of(table)[:16], EtagKind.BLAKE3, late
