"""Which segments have shards at how many locations: by listing, a thousand names a request, instead of asking for each.

A listing shows that an object is there, not that it verifies: good enough to find those that are worth a census.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import cast

import trio

from qss.errors import QssError
from qss.ids import LocationId, SegmentId
from qss.offload.census import GENERATION
from qss.offload.keys import FsKeys
from qss.s3.store import ObjectInfo, ObjectStore


async def count_shards(
    nodes: Mapping[LocationId, ObjectStore],
    keys: FsKeys,
    segments: Collection[SegmentId],
    on_progress: Callable[[int], None] = lambda _objects: None,
) -> Counter[SegmentId]:
    """Objects that bear the name of a shard of each segment. A location that cannot be listed counts for nothing.

    Memory: the names of these segments, for each location. `on_progress` hears how many objects were seen.
    """
    found: Counter[SegmentId] = Counter()
    seen = 0

    async def look(location: LocationId, node: ObjectStore) -> None:
        nonlocal seen
        names = {keys.shard_name(segment, GENERATION, location): segment for segment in segments}
        try:
            # Every ObjectStore.list is an async generator; the port's type says less.
            async with aclosing(cast("AsyncGenerator[ObjectInfo, None]", node.list())) as listing:
                async for info in listing:
                    segment = names.pop(info.key, None)
                    if segment is not None:
                        found[segment] += 1
                    seen += 1
                    on_progress(seen)
        except QssError:
            return

    async with trio.open_nursery() as nursery:
        for location, node in nodes.items():
            nursery.start_soon(look, location, node)
    return found
