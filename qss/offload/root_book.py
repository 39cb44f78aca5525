"""Roots as objects at the locations: found, claimed, replaced, deleted. What it means is qss.offload.roots'.

A root of generation g is put under the name of g only if there is none yet, and under the name "current", which is
replaced each time. docs/formats/root.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import trio

from qss.errors import CorruptData, Damaged, PreconditionFailed, QssError, Unreachable
from qss.formats.root import ROOT_BYTES_MAX, Root
from qss.host import Host
from qss.ids import LocationId
from qss.offload.keys import FsKeys
from qss.offload.seal import NONCE_BYTES, open_box, seal_box
from qss.s3.store import Body, ObjectStore

HISTORY_KEPT: Final = 16
"""Generations kept at the locations besides the newest."""
PROBE_AHEAD: Final = 16
"""Generations looked for beyond the newest "current", which a crash can leave behind."""
DEADLINE_S: Final = 15.0
"""How long a location may take before it counts as silent."""
STRAGGLER_S: Final = 2.0
"""The same, once a majority has answered."""

_DOMAIN: Final = b"qss root v1\0"

_Act = Callable[[LocationId, ObjectStore], Awaitable[None]]


class RootBook:
    """Roots as objects: encrypted, named, asked for. Knows nothing of who may write."""

    def __init__(self, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, host: Host) -> None:
        self._nodes = nodes
        self._keys = keys
        self._host = host

    @property
    def places(self) -> Sequence[LocationId]:
        return tuple(self._nodes)

    @property
    def majority(self) -> int:
        return len(self._nodes) // 2 + 1

    def seal(self, root: Root) -> bytes:
        return seal_box(self._keys.root, _DOMAIN + self._keys.fs_id, root.pack(), self._host.entropy.token(NONCE_BYTES))

    def open(self, box: bytes) -> Root:
        """Raises CorruptData when it is not a root of this file system."""
        if len(box) > ROOT_BYTES_MAX:
            raise CorruptData("a root object is larger than any root")
        root = Root.unpack(open_box(self._keys.root, _DOMAIN + self._keys.fs_id, box))
        if root.fs_id != self._keys.fs_id:
            raise CorruptData("a root is of another file system")
        return root

    async def survey(self) -> tuple[list[Root], int]:
        """The verified "current" roots of all locations, and how many locations answered."""
        answers = await self._ask_all(None)
        return [root for root in answers.values() if root is not None], len(answers)

    async def behind(self, root: Root) -> set[LocationId]:
        """Locations whose "current" is not this root, or that do not say."""
        answers = await self._ask_all(None)
        return {name for name in self._nodes if (there := answers.get(name)) is None or there.digest() != root.digest()}

    async def read(self, generation: int) -> list[Root]:
        """The different roots that locations hold for one generation."""
        return list({root.digest(): root for root in (await self._votes(generation)).values()}.values())

    async def newest_first(self) -> AsyncGenerator[Root, None]:
        """Every root that can be found, newest first: from beyond the newest "current" back along the generations.

        Raises Unreachable when no location answers.
        """
        current, answered = await self.survey()
        if not answered:
            raise Unreachable("no location answers")
        top = max((root.generation for root in current), default=0)
        found = {root.digest(): root for root in current}
        # Of two roots of one generation one has lost, though it may be of a higher epoch: a recovery that was too late
        # leaves its claim at a few locations. "Current" is written behind a majority only.
        votes = Counter(root.digest() for root in current for _ in self._nodes)
        for generation in range(top + 1, top + 1 + PROBE_AHEAD):
            further = await self._votes(generation)
            if not further:
                break
            found |= {root.digest(): root for root in further.values()}
            votes.update(root.digest() for root in further.values())
        newest = max((root.generation for root in found.values()), default=0)
        for generation in range(newest, max(0, newest - HISTORY_KEPT) - 1, -1):
            if generation and generation <= top:
                there = await self._votes(generation)
                found |= {root.digest(): root for root in there.values()}
                votes.update(root.digest() for root in there.values())
            here = [digest for digest, root in found.items() if root.generation >= generation]
            won = {digest for digest in here if votes[digest] >= self.majority}
            for digest in sorted(here, key=lambda one: (one in won, found[one].order, votes[one], one), reverse=True):
                root = found.pop(digest)
                if digest in won:
                    votes[root.previous] += len(self._nodes)  # so has the one it was put on
                yield root

    async def _votes(self, generation: int) -> dict[LocationId, Root]:
        """Who holds which root of a generation."""
        answers = await self._ask_all(generation)
        return {place: root for place, root in answers.items() if root is not None and root.generation == generation}

    async def claim(self, root: Root, box: bytes) -> dict[LocationId, Root | QssError]:
        """Claim the generation everywhere: for each location the root that is there now, ours or another's, or why it
        cannot be said. What is there is never replaced."""
        there: dict[LocationId, Root | QssError] = {}

        async def put(location: LocationId, node: ObjectStore) -> None:
            name = self._keys.root_name(root.generation)
            try:
                await node.put(name, _body(box), if_absent=True)
            except (PreconditionFailed, Unreachable):
                # Theirs, or ours whose answer was lost: look. What does not answer now raises Unreachable again.
                found = self.open(await node.get(name))
                if found.generation != root.generation:
                    raise CorruptData(f"{location} shows another root as root {root.generation}") from None
                if found.digest() != root.digest():
                    there[location] = found
                    raise PreconditionFailed(f"another root {root.generation} is at {location}") from None
            there[location] = root

        outcome = await self._for_all(put)
        return {location: there.get(location) or outcome[location] or root for location in outcome}

    async def replace(self, root: Root, box: bytes, places: Collection[LocationId]) -> None:
        """Put it over roots that have lost against it. Raises what a location does."""
        for place in places:
            await self._nodes[place].put(self._keys.root_name(root.generation), _body(box))

    async def put_current(self, box: bytes) -> dict[LocationId, QssError | None]:
        async def put(_location: LocationId, node: ObjectStore) -> None:
            await node.put(self._keys.root_name(None), _body(box))

        return await self._for_all(put)

    async def put_both(self, location: LocationId, root: Root, box: bytes) -> None:
        """Bring one location up to date with a root that is committed elsewhere; one of its generation that lost goes.
        Raises what the location does."""
        name = self._keys.root_name(root.generation)
        try:
            await self._nodes[location].put(name, _body(box), if_absent=True)
        except PreconditionFailed:
            if (await self._open_at(location, name)) != root.digest():
                await self._nodes[location].put(name, _body(box))
        await self._nodes[location].put(self._keys.root_name(None), _body(box))

    async def put_current_at(self, node: ObjectStore, box: bytes) -> None:
        """Tell one place, which may have left the set, what the file system is now. Raises what it does."""
        await node.put(self._keys.root_name(None), _body(box))

    def knows(self, location: LocationId) -> bool:
        """Whether it is one of the locations now."""
        return location in self._nodes

    @property
    def size(self) -> int:
        """How many locations there are now."""
        return len(self._nodes)

    async def drop(self, overdue: Mapping[LocationId, set[int]]) -> None:
        """Delete old generations, and take from `overdue` what is gone."""

        async def delete(location: LocationId, node: ObjectStore) -> None:
            for generation in sorted(overdue.get(location, ())):
                if generation > 0:
                    await node.delete(self._keys.root_name(generation))
                overdue[location].discard(generation)

        if any(overdue.values()):
            await self._for_all(delete)

    async def generation_at(self, location: LocationId) -> int | None:
        """Of the "current" root there; None: there is none that verifies. Raises what the location does."""
        try:
            return self.open(await self._nodes[location].get(self._keys.root_name(None))).generation
        except Damaged:
            return None

    async def _open_at(self, location: LocationId, name: str) -> bytes:
        """Its digest; empty if it does not verify."""
        try:
            return self.open(await self._nodes[location].get(name)).digest()
        except Damaged:
            return b""

    async def _ask_all(self, generation: int | None) -> dict[LocationId, Root | None]:
        """Of the locations that answered: their root; None where there is none or it does not verify."""
        answers: dict[LocationId, Root | None] = {}

        async def ask(location: LocationId, node: ObjectStore) -> None:
            try:
                answers[location] = self.open(await node.get(self._keys.root_name(generation)))
            except Damaged:
                answers[location] = None

        await self._for_all(ask)
        return answers

    async def _for_all(self, act: _Act) -> dict[LocationId, QssError | None]:
        """Do it at every location at once; once a majority has succeeded, the others get little more time."""
        outcome: dict[LocationId, QssError | None] = {}
        succeeded = 0

        async def one(location: LocationId, node: ObjectStore) -> None:
            nonlocal succeeded
            try:
                await act(location, node)
            except QssError as error:
                outcome[location] = error
            else:
                outcome[location] = None
                succeeded += 1
                if succeeded >= self.majority:
                    nursery.cancel_scope.deadline = min(
                        nursery.cancel_scope.deadline, trio.current_time() + STRAGGLER_S
                    )

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + DEADLINE_S
            for location, node in self._nodes.items():
                nursery.start_soon(one, location, node)
        late = {location: Unreachable("no answer in time") for location in self._nodes if location not in outcome}
        return outcome | late


def _body(data: bytes) -> Body:
    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield data

    return Body(len(data), chunks)
