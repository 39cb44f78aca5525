"""Which objects are at how many locations: by listing, a thousand names a request, instead of asking for each.

A listing shows that an object is there, not that it verifies: good enough to find what is worth asking for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Final, TypeVar, cast

import trio

from qss.errors import QssError, Unreachable
from qss.formats.root import Root
from qss.ids import LocationId, SegmentId
from qss.offload.census import GENERATION
from qss.offload.keys import FsKeys
from qss.offload.roots import PROBE_AHEAD, RootBook
from qss.s3.store import ObjectInfo, ObjectStore

GENERATIONS_MAX: Final = 2**17
"""Of roots, from the newest back, that are looked for."""
ROOTS_AT_ONCE: Final = 16

Nodes = Mapping[LocationId, ObjectStore]
T = TypeVar("T")


async def count_shards(
    nodes: Nodes, keys: FsKeys, segments: Collection[SegmentId], on_progress: Callable[[int], None] = lambda _seen: None
) -> Counter[SegmentId]:
    """Objects that bear the name of a shard of each segment. `on_progress` hears how many objects were seen."""
    return await _count(
        nodes, lambda location: {keys.shard_name(each, GENERATION, location): each for each in segments}, on_progress
    )


async def every_root(nodes: Nodes, keys: FsKeys, book: RootBook) -> list[Root]:
    """All roots that can be found, newest first. Raises Unreachable when no location answers."""
    current, answered = await book.survey()
    if not answered:
        raise Unreachable("no location answers")
    found = {root.digest(): root for root in current}
    top = max((root.generation for root in current), default=0) + PROBE_AHEAD
    names = {keys.root_name(number): number for number in range(max(1, top - GENERATIONS_MAX), top + 1)}
    slots = trio.CapacityLimiter(ROOTS_AT_ONCE)

    async def read(generation: int) -> None:
        async with slots:
            found.update({root.digest(): root for root in await book.read(generation)})

    generations = await _count(nodes, lambda _location: dict(names))
    async with trio.open_nursery() as nursery:
        for generation in generations:
            nursery.start_soon(read, generation)
    return sorted(found.values(), key=lambda root: (root.generation, root.epoch, root.digest()), reverse=True)


async def _count(
    nodes: Nodes,
    wanted: Callable[[LocationId], dict[str, T]],
    on_progress: Callable[[int], None] = lambda _seen: None,
) -> Counter[T]:
    """How many locations have an object of each name that is `wanted` there. One that cannot be listed counts for
    nothing. Memory: the names, for each location."""
    found: Counter[T] = Counter()
    seen = 0

    async def look(location: LocationId, node: ObjectStore) -> None:
        nonlocal seen
        names = wanted(location)
        try:
            # Every ObjectStore.list is an async generator; the port's type says less.
            async with aclosing(cast("AsyncGenerator[ObjectInfo, None]", node.list())) as listing:
                async for info in listing:
                    what = names.pop(info.key, None)
                    if what is not None:
                        found[what] += 1
                    seen += 1
                    on_progress(seen)
        except QssError:
            return

    async with trio.open_nursery() as nursery:
        for location, node in nodes.items():
            nursery.start_soon(look, location, node)
    return found
