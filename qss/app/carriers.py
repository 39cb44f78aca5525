"""The two sides of qss.segments over the control sockets: a shelf and a vault that live in the other process.

`RemoteShelf` is what offload sees of the cache, `RemoteVault` what the cache sees of offload. When the other process
is down their calls raise Unreachable, which is Retryable: the caller tries again within its own deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qss.app import wire
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.ids import SegmentId, StripeNo
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentShelf, SegmentVault, StoredSegment


class RemoteShelf:
    """A SegmentShelf over a control socket."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def unsafe_segments(self) -> list[SealedSegment]:
        return [wire.sealed_of(each) for each in await self._client.call("shelf.unsafe_segments")]

    async def path_of(self, segment: SegmentId) -> Path:
        return wire.path_of(await self._client.call("shelf.path_of", segment=segment))

    async def sealed_segment(self, segment: SegmentId) -> SealedSegment:
        return wire.sealed_of(await self._client.call("shelf.sealed_segment", segment=segment))

    async def held_segments(self) -> list[SealedSegment]:
        return [wire.sealed_of(each) for each in await self._client.call("shelf.held_segments")]

    async def stored_segments(self) -> list[StoredSegment]:
        return [wire.stored_of(each) for each in await self._client.call("shelf.stored_segments")]

    async def mark_offloaded(self, receipt: Receipt) -> None:
        await self._client.call("shelf.mark_offloaded", receipt=wire.receipt_to_json(receipt))

    async def restore_point(self) -> RestorePoint | None:
        return wire.point_of(await self._client.call("shelf.restore_point"))

    async def mark_published(self, point: RestorePoint) -> None:
        await self._client.call("shelf.mark_published", point=wire.point_to_json(point))

    async def condemned(self) -> list[SegmentId]:
        return wire.segments_of(await self._client.call("shelf.condemned"))

    async def mark_deleted(self, segment: SegmentId) -> None:
        await self._client.call("shelf.mark_deleted", segment=segment)


def shelf_methods(shelf: SegmentShelf) -> Mapping[str, Method]:
    """What the mount process answers, so that a RemoteShelf works."""

    async def unsafe_segments(_call: Call) -> Json:
        return [wire.sealed_to_json(each) for each in await shelf.unsafe_segments()]

    async def path_of(call: Call) -> Json:
        return wire.path_to_json(await shelf.path_of(wire.segment_of(call.params["segment"])))

    async def sealed_segment(call: Call) -> Json:
        return wire.sealed_to_json(await shelf.sealed_segment(wire.segment_of(call.params["segment"])))

    async def held_segments(_call: Call) -> Json:
        return [wire.sealed_to_json(each) for each in await shelf.held_segments()]

    async def stored_segments(_call: Call) -> Json:
        return [wire.stored_to_json(each) for each in await shelf.stored_segments()]

    async def mark_offloaded(call: Call) -> Json:
        await shelf.mark_offloaded(wire.receipt_of(call.params["receipt"]))

    async def restore_point(_call: Call) -> Json:
        return wire.point_to_json(await shelf.restore_point())

    async def mark_published(call: Call) -> Json:
        point = wire.point_of(call.params["point"])
        if point is not None:
            await shelf.mark_published(point)

    async def condemned(_call: Call) -> Json:
        return list(await shelf.condemned())

    async def mark_deleted(call: Call) -> Json:
        await shelf.mark_deleted(wire.segment_of(call.params["segment"]))

    methods = (
        unsafe_segments, path_of, sealed_segment, held_segments, stored_segments, mark_offloaded, restore_point,
        mark_published, condemned, mark_deleted,
    )  # fmt: skip
    return {f"shelf.{method.__name__}": method for method in methods}


class RemoteVault:
    """A SegmentVault over a control socket."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await self._client.call("vault.fetch", segment=segment, stripe=stripe, into=wire.path_to_json(into))


def vault_methods(vault: SegmentVault) -> Mapping[str, Method]:
    """What the offload process answers, so that a RemoteVault works."""

    async def fetch(call: Call) -> Json:
        params = call.params
        await vault.fetch(
            wire.segment_of(params["segment"]), wire.stripe_of(params["stripe"]), wire.path_of(params["into"])
        )

    return {"vault.fetch": fetch}
