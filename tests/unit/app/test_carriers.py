from pathlib import Path

import pytest
import trio

from qss.app.carriers import RemoteShelf, RemoteVault, shelf_methods, vault_methods
from qss.control.client import ControlClient
from qss.control.server import serve
from qss.errors import ObjectMissing, Retryable, TooFewShards
from qss.ids import LocationId, SegmentId, StripeNo
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind

SEGMENT = SealedSegment(SegmentId(7), SegmentKind.DATA, 100, 5, SegmentId(0))
RECEIPT = Receipt(SegmentId(7), bytes(16), 1, 1, (LocationId("a"), None), 60)
POINT = RestorePoint((), (SegmentId(8),), 9, SegmentId(9))


class Shelf:
    def __init__(self):
        self.noted = []

    async def unsafe_segments(self):
        return [SEGMENT]

    async def path_of(self, segment):
        if segment != SEGMENT.id:
            raise ObjectMissing(f"segment {segment} is not cached")
        return Path("/cache/7")

    async def sealed_segment(self, segment):
        return SEGMENT

    async def mark_offloaded(self, receipt):
        self.noted.append(receipt)

    async def restore_point(self):
        return POINT if self.noted else None

    async def mark_published(self, point):
        self.noted.append(point)

    async def condemned(self):
        return [SegmentId(3), SegmentId(5)]

    async def mark_deleted(self, segment):
        self.noted.append(segment)


class Vault:
    async def fetch(self, segment, stripe, into):
        if segment != SEGMENT.id:
            raise TooFewShards("2 of 4 shards answer")
        into.write_text(f"{segment}/{stripe}")


async def test_a_shelf_over_a_socket(tmp_path, nursery):
    shelf = Shelf()
    await nursery.start(serve, tmp_path / "run" / "s", shelf_methods(shelf))
    async with ControlClient(tmp_path / "run" / "s") as client:
        remote = RemoteShelf(client)
        assert await remote.unsafe_segments() == [SEGMENT]
        assert await remote.path_of(SEGMENT.id) == Path("/cache/7")
        assert await remote.sealed_segment(SEGMENT.id) == SEGMENT
        with pytest.raises(ObjectMissing, match="segment 9"):
            await remote.path_of(SegmentId(9))
        assert await remote.restore_point() is None
        await remote.mark_offloaded(RECEIPT)
        assert await remote.restore_point() == POINT
        await remote.mark_published(POINT)
        assert await remote.condemned() == [3, 5]
        await remote.mark_deleted(SegmentId(3))
        assert shelf.noted == [RECEIPT, POINT, 3]


async def test_a_vault_over_a_socket(tmp_path, nursery):
    path = tmp_path / "run" / "v"
    async with ControlClient(path) as client:
        remote = RemoteVault(client)
        with pytest.raises(Retryable):  # offload is down: the cache may try again
            await remote.fetch(SEGMENT.id, StripeNo(2), tmp_path / "out")
        await nursery.start(serve, path, vault_methods(Vault()))
        await remote.fetch(SEGMENT.id, StripeNo(2), tmp_path / "out")
        assert (tmp_path / "out").read_text() == "7/2"
        with pytest.raises(TooFewShards, match="2 of 4"):
            await remote.fetch(SegmentId(9), StripeNo(0), tmp_path / "out")


async def test_a_dead_vault_fails_the_call_under_way(tmp_path, nursery):
    started = trio.Event()

    class Slow(Vault):
        async def fetch(self, segment, stripe, into):
            started.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as server:
        await server.start(serve, tmp_path / "run" / "v", vault_methods(Slow()))
        failed = trio.Event()

        async def fetch():
            async with ControlClient(tmp_path / "run" / "v") as client:
                with pytest.raises(Retryable):
                    await RemoteVault(client).fetch(SEGMENT.id, StripeNo(0), tmp_path / "out")
                failed.set()

        nursery.start_soon(fetch)
        await started.wait()
        server.cancel_scope.cancel()
    with trio.fail_after(5):
        await failed.wait()
