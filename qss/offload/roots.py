"""Publishing and finding roots: the remote commit point.

Every root goes to every location twice: as the object of its generation, put only if there is none yet (at a majority
of locations this decides who writes), and as the object "current" that is replaced each time and tells a reader where
to start. Majorities meet: two machines cannot both publish one generation. docs/adr/0033.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from qss.errors import CorruptData, Damaged, PreconditionFailed, QssError, Refused, Unreachable
from qss.formats.root import ROOT_BYTES_MAX, Root, RootLocation
from qss.host import Host
from qss.ids import LocationId
from qss.offload.files import replace_file
from qss.offload.history import NO_DIGEST, History, Known, judge, refusal
from qss.offload.keys import FsKeys
from qss.offload.seal import NONCE_BYTES, open_box, seal_box
from qss.s3.store import Body, ObjectStore
from qss.segments import RestorePoint

HISTORY_KEPT: Final = 16
"""Generations kept at the locations besides the newest."""
PROBE_AHEAD: Final = 16
"""Generations looked for beyond the newest "current", which a crash can leave behind."""
WRITER_BYTES: Final = 16
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
        answers = await self._ask_all(generation)
        different = {root.digest(): root for root in answers.values() if root and root.generation == generation}
        return list(different.values())

    async def newest_first(self) -> AsyncGenerator[Root, None]:
        """Every root that can be found, newest first: from beyond the newest "current" back along the generations.

        Raises Unreachable when no location answers.
        """
        current, answered = await self.survey()
        if not answered:
            raise Unreachable("no location answers")
        top = max((root.generation for root in current), default=0)
        found = {root.digest(): root for root in current}
        for generation in range(top + 1, top + 1 + PROBE_AHEAD):
            further = await self.read(generation)
            if not further:
                break
            found |= {root.digest(): root for root in further}
        newest = max((root.generation for root in found.values()), default=0)
        for generation in range(newest, max(0, newest - HISTORY_KEPT) - 1, -1):
            if generation and generation <= top:
                found |= {root.digest(): root for root in await self.read(generation)}
            here = [digest for digest, root in found.items() if root.generation >= generation]
            for digest in sorted(here, key=lambda digest: (found[digest].order, digest), reverse=True):
                yield found.pop(digest)

    async def put_history(self, root: Root, box: bytes) -> dict[LocationId, QssError | None]:
        """Claim the generation everywhere. For each location None (ours is there), or why not: PreconditionFailed
        means another root is there."""

        async def put(location: LocationId, node: ObjectStore) -> None:
            name = self._keys.root_name(root.generation)
            try:
                await node.put(name, _body(box), if_absent=True)
            except (PreconditionFailed, Unreachable):
                # Theirs, or ours whose answer was lost: look. What does not answer now raises Unreachable again.
                there = self.open(await node.get(name))
                if there.digest() != root.digest():
                    if there.writer != root.writer:
                        raise PreconditionFailed(f"another machine has written root {root.generation}") from None
                    await node.put(name, _body(box))  # left by an earlier life of this machine, never committed

        return await self._for_all(put)

    async def put_current(self, box: bytes) -> dict[LocationId, QssError | None]:
        async def put(_location: LocationId, node: ObjectStore) -> None:
            await node.put(self._keys.root_name(None), _body(box))

        return await self._for_all(put)

    async def put_both(self, location: LocationId, root: Root, box: bytes) -> None:
        """Bring one location up to date with a root that is committed elsewhere. Raises what the location does."""
        with suppress(PreconditionFailed):
            await self._nodes[location].put(self._keys.root_name(root.generation), _body(box), if_absent=True)
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


class Roots:
    """The roots of the file system this machine writes. Owner of `root.json`."""

    def __init__(
        self, book: RootBook, keys: FsKeys, host: Host, state: Path, code: tuple[int, int],
        locations: Sequence[RootLocation] = (), created_by: str = "",
    ) -> None:  # fmt: skip
        """`state`: this machine's directory, e.g. `state/offload`; `code`: (k, m) of new segments."""
        self._book = book
        self._keys = keys
        self._host = host
        self._path = state / "root.json"
        self._code = code
        self._locations = tuple(locations)
        self._created_by = created_by
        self.known = self._load()
        self.last: Root | None = None  # as published or adopted in this run
        self.behind: set[LocationId] = set()  # have not got the last root
        self._box = b""
        self._pending: tuple[Root, bytes] | None = None  # claimed at some locations, not at a majority
        self._overdue: dict[LocationId, set[int]] = {}  # generations to delete there

    async def catch_up(self) -> Root | None:
        """Before the first publication: adopt what a crash left between a root and `root.json`. None: no root yet.

        Raises Unreachable without a majority; Refused when the locations show less than this machine has published;
        PreconditionFailed when another machine has taken over.
        """
        newest, history = await self.look()
        trouble = refusal(history, self.known, newest)
        if trouble is not None:
            raise trouble
        if newest is None:
            self._save()  # the writer id must outlive a crash behind the first publication
        elif history is History.OURS:
            self._remember(newest, newest.epoch)
        self.last = newest
        if newest is not None:
            self._box = self._book.seal(newest)
            self._expire(newest.generation - 1, newest.generation)  # a crash may have come between
            self.behind = await self._book.behind(newest)
        return newest

    async def newest(self) -> Root | None:
        """The newest root that a majority of locations can show. Raises as `catch_up`, but for another writer."""
        newest, history = await self.look()
        if history is History.ROLLED_BACK:
            trouble = refusal(history, self.known, newest)
            assert trouble is not None
            raise trouble
        return newest

    async def look(self) -> tuple[Root | None, History]:
        """The newest root there, and how it stands to what is known here. Raises Unreachable without a majority."""
        current, answered = await self._book.survey()
        if answered < self._book.majority:
            raise Unreachable(f"{answered} locations answer; {self._book.majority} must, to know the newest root")
        newest: Root | None = None
        async with aclosing(self._book.newest_first()) as roots:
            newest = await anext(roots, None)
        before: list[Root] = []
        if newest is not None and self.known.generation and newest.digest() != self.known.digest:
            before = await self._book.read(self.known.generation)
        return newest, judge(self.known, newest, current, before)

    def insist(self, newest: Root | None) -> None:
        """The user wants what is here, whatever the locations show: go on with it, above everything there is."""
        epoch = max(self.known.epoch, newest.epoch if newest else 0)
        self.known = replace(
            self.known,
            generation=max(self.known.generation, newest.generation if newest else 0),
            epoch=epoch,
            digest=newest.digest() if newest else NO_DIGEST,
            next_epoch=max(self.known.next_epoch, epoch + 1),
        )
        self._save()

    def raise_epoch(self, above: int) -> None:
        """Write with an epoch above this one from now on: what another machine does with its own is void."""
        self.known = replace(self.known, next_epoch=max(self.known.next_epoch, above + 1))
        self._save()

    def take_over(self, newest: Root) -> None:
        """After recovery on this machine: continue behind the newest root that was seen, with a new epoch, whichever
        root was restored. The first publication tells the other machine, if it is alive, that it has lost."""
        self._remember(newest, newest.epoch + 1)

    async def publish(self, point: RestorePoint) -> Root:
        """Make `point` what the file system is. Returns when a majority of locations holds the root.

        Raises Unreachable when fewer can be had (call again: the same root goes on), PreconditionFailed when another
        machine has written. Crash after 1: `catch_up` finds and adopts the root, or it was never committed.
        After 2: readers find it one beyond "current". After 3: `catch_up` adopts it.
        """
        if self._pending is not None and self._pending[0].point != point:
            await self._commit(*self._pending)  # its generation may be taken at a majority already
        if self._pending is None:
            root = self._next(point)
            self._pending = (root, self._book.seal(root))
        return await self._commit(*self._pending)

    # -- a set of locations that changes (docs/adr/0113)
    def follow(self, locations: Sequence[RootLocation], came: Collection[LocationId]) -> None:
        """From now on these are the locations; those that `came` have no root yet."""
        self._locations = tuple(locations)
        self.behind = {location for location in self.behind | set(came) if self._book.knows(location)}
        self._overdue = {location: due for location, due in self._overdue.items() if self._book.knows(location)}

    @property
    def names_them(self) -> bool:
        """Whether the last root names the locations that are configured."""
        return self.last is not None and self.last.locations == self._locations

    @property
    def settled(self) -> bool:
        """Whether a majority of the locations as they are now holds the last root, and it names them: then the set may
        change by one. Before the first root there is nothing to hold."""
        if self._pending is not None:
            return False
        if self.last is None:
            return not self.known.generation
        return self.names_them and self._book.size - len(self.behind) >= self._book.majority

    async def farewell(self, node: ObjectStore) -> None:
        """Leave the last root at a place that has left the set: whoever starts there later, from an old configuration,
        sees that the file system went on, and where. Raises what the place does."""
        if self.last is not None and self._box:
            await self._book.put_current_at(node, self._box)

    async def spread(self) -> None:
        """Give the last root to locations that missed it and may be back."""
        root, box = self.last, self._box
        if root is None or not box:
            return
        self.behind = {location for location in self.behind if self._book.knows(location)}
        for location in sorted(self.behind):
            try:
                before = await self._book.generation_at(location)
                await self._book.put_both(location, root, box)
            except QssError:
                continue
            if self.last is not root:
                return  # a newer one was published meanwhile, and knows by itself who misses it
            self.behind.discard(location)
            if before is not None:  # it has missed every deletion since
                self._overdue.setdefault(location, set()).update(_expired(before, root.generation))
        await self._book.drop(self._overdue)

    async def _commit(self, root: Root, box: bytes) -> Root:
        outcome = await self._book.put_history(root, box)  # 1. claim the generation
        ours = [location for location, error in outcome.items() if error is None]
        lost = [error for error in outcome.values() if isinstance(error, PreconditionFailed)]
        if len(ours) < self._book.majority:
            if lost:
                self._pending = None
                raise PreconditionFailed(
                    f"another machine has written root {root.generation}: this one must not write any more"
                )
            trouble = next((error for error in outcome.values() if error is not None), None)
            raise Unreachable(f"root {root.generation} is at {len(ours)} of {self._book.majority} locations: {trouble}")
        current = await self._book.put_current(box)  # 2. where readers start
        self._remember(root, root.epoch)  # 3. never go back behind this one
        self._pending = None
        self.last, self._box = root, box
        self.behind = {location for location, error in (outcome | current).items() if error is not None}
        self._expire(root.generation, root.generation)
        await self._book.drop(self._overdue)
        return root

    def _expire(self, first: int, last: int) -> None:
        for location in self._book.places:
            self._overdue.setdefault(location, set()).update(_expired(first, last))

    def _next(self, point: RestorePoint) -> Root:
        k, m = self._code
        return Root(
            fs_id=self._keys.fs_id,
            generation=self.known.generation + 1,
            epoch=self.known.next_epoch,
            writer=self.known.writer,
            previous=self.known.digest,
            k=k,
            m=m,
            point=point,
            created_ns=self._host.clock.now_ns(),
            created_by=self._created_by,
            locations=self._locations,
        )

    def _remember(self, root: Root, next_epoch: int) -> None:
        self.known = replace(
            self.known, generation=root.generation, epoch=root.epoch, digest=root.digest(), next_epoch=next_epoch
        )
        self._save()

    def _load(self) -> Known:
        """A new writer id when there is no file. Raises CorruptData when there is one that cannot be read."""
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return Known(0, 0, NO_DIGEST, self._host.entropy.token(WRITER_BYTES), 0)
        try:
            fields = json.loads(text)
            if fields["fs_id"] != self._keys.fs_id.hex():
                raise Refused(f"{self._path} is of another file system: key and state directory do not belong together")
            return Known(
                int(fields["generation"]), int(fields["epoch"]),
                bytes.fromhex(fields["digest"]), bytes.fromhex(fields["writer"]),
                int(fields["next_epoch"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptData(f"{self._path} cannot be read; it is safe to move it away") from error

    def _save(self) -> None:
        fields = {
            "fs_id": self._keys.fs_id.hex(),
            "generation": self.known.generation,
            "epoch": self.known.epoch,
            "digest": self.known.digest.hex(),
            "writer": self.known.writer.hex(),
            "next_epoch": self.known.next_epoch,
        }
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, (json.dumps(fields) + "\n").encode(), sync=True)


def _expired(first: int, last: int) -> range:
    """Generations whose time was over with the roots from `first` to `last`."""
    return range(max(1, first - HISTORY_KEPT), last - HISTORY_KEPT + 1)


def _body(data: bytes) -> Body:
    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield data

    return Body(len(data), chunks)
