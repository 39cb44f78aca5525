"""What the mount process answers to fsck. By itself, so that it imports nothing of offload: starts are to be short."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from qss.cache.store import SegmentCache
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.fs.losses import files_in_segments
from qss.fsck.check import check_online, segment_rows


def fsck_methods(cache: SegmentCache) -> Mapping[str, Method]:
    """Read only."""

    async def index(call: Call) -> Json:
        async def on_stage(stage: str, count: int) -> None:
            await call.progress({"stage": stage, "looked_at": count})

        return (await check_online(cache, on_stage)).to_json()

    async def segments(_call: Call) -> Json:
        return [[segment, row.pack().hex()] for segment, row in segment_rows(cache).items()]

    async def files(call: Call) -> Json:
        """Which bytes of which files lie in these segments."""
        wanted = frozenset(int(segment) for segment in call.params["segments"])
        found = await files_in_segments(cache, wanted, trio.lowlevel.checkpoint)
        return [each.to_json() for each in found]

    return {"fsck.index": index, "fsck.segments": segments, "fsck.files": files}
