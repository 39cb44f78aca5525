"""Publishing and finding roots: the remote commit point.

Every root goes to every location twice: as the object of its generation, put only if there is none yet (at a majority
of locations this decides who writes), and as the object "current" that is replaced each time and tells a reader where
to start. Majorities meet: two machines cannot both publish one generation. docs/adr/0033, 0121.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from qss.errors import PreconditionFailed, QssError, Unreachable
from qss.formats.root import Root, RootLocation
from qss.host import Host
from qss.ids import LocationId, SegmentId
from qss.offload.history import NO_DIGEST, History, Known, judge, refusal
from qss.offload.keys import FsKeys
from qss.offload.root_book import HISTORY_KEPT, PROBE_AHEAD, RootBook
from qss.offload.root_memory import RootMemory
from qss.s3.store import ObjectStore
from qss.segments import RestorePoint

__all__ = ["HISTORY_KEPT", "PROBE_AHEAD", "RootBook", "Roots"]


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
        self._memory = RootMemory(state / "root.json", keys.fs_id, host.entropy)
        self._code = code
        self._locations = tuple(locations)
        self._created_by = created_by
        self.last: Root | None = None  # as published or adopted in this run
        self.behind: set[LocationId] = set()  # have not got the last root
        self._box = b""
        claim = self._memory.claim  # of an earlier life
        self._pending = (claim, book.seal(claim)) if claim is not None else None  # at some locations perhaps

    @property
    def known(self) -> Known:
        """What this machine remembers, over restarts."""
        return self._memory.known

    async def catch_up(self) -> Root | None:
        """Before the first publication: bring to a majority what a crash left between a root and `root.json`. None: no
        root yet.

        Raises Unreachable without a majority; Refused when the locations show less than this machine has published;
        PreconditionFailed when another machine has taken over.
        """
        newest, history = await self.look()
        trouble = refusal(history, self.known, newest)
        if trouble is not None:
            raise trouble
        if newest is None:
            self._memory.keep(self.known)  # the writer id must outlive a crash behind the first publication
        elif history is History.OURS and self._pending is not None:
            return await self._commit(*self._pending)
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
        if (
            newest is not None
            and self.known.generation
            and newest.digest()
            not in (
                self.known.digest,
                self.known.claim,
            )
        ):
            before = await self._book.read(self.known.generation)
        return newest, judge(self.known, newest, current, before)

    def insist(self, newest: Root | None) -> None:
        """The user wants what is here, whatever the locations show: go on with it, above everything there is."""
        epoch = max(self.known.epoch, newest.epoch if newest else 0)
        self._withdraw()
        self._memory.keep(
            replace(
                self.known,
                generation=max(self.known.generation, newest.generation if newest else 0),
                epoch=epoch,
                digest=newest.digest() if newest else NO_DIGEST,
                next_epoch=max(self.known.next_epoch, epoch + 1),
            )
        )

    def raise_epoch(self, above: int) -> None:
        """Write with an epoch above this one from now on: what another machine does with its own is void."""
        self._withdraw()
        self._memory.keep(replace(self.known, next_epoch=max(self.known.next_epoch, above + 1)))

    def take_over(self, newest: Root, numbers_from: int = 0) -> None:
        """After recovery on this machine: continue behind the newest root that was seen, with a new epoch, whichever
        root was restored. The first publication tells the other machine, if it is alive, that it has lost.
        `numbers_from`: the first number of a segment of this machine."""
        self._pending = None
        self._memory.numbers_from = numbers_from
        self._memory.committed(newest, newest.epoch + 1)

    def nothing_yet(self) -> RestorePoint:
        """What the first root of a file system says: somebody writes it, and nothing of it is stored. ADR 0152."""
        return RestorePoint((), (), self._host.clock.now_ns(), SegmentId(1))

    def raised(self, point: RestorePoint) -> RestorePoint:
        """This point as a root of ours says it: its numbers never go back behind those of an earlier root, nor behind
        those that were left out by a recovery, although no journal with such a number may be published yet."""
        before = self.last.point.next_segment if self.last is not None else 0
        return replace(point, next_segment=SegmentId(max(point.next_segment, self._memory.numbers_from, before)))

    async def publish(self, point: RestorePoint, *, anew: bool = False) -> Root:
        """Make `point` what the file system is. Returns when a majority of locations holds the root. `anew`: a root
        that no earlier attempt has brought anywhere.

        Raises Unreachable when fewer can be had (call again: the same root goes on), PreconditionFailed when another
        machine has written. Crash after 0 or 1: the next life goes on with this very root. After 2: readers find it one
        beyond "current". After 3: `catch_up` does the rest.
        """
        if self._pending is not None and (anew or self._pending[0].point != point):
            await self._commit(*self._pending)  # its generation may be taken at a majority already
        if self._pending is None:
            root = self._next(point)
            self._memory.intend(root)  # 0. never another root of this generation
            self._pending = (root, self._book.seal(root))
        return await self._commit(*self._pending)

    # -- a set of locations that changes (docs/adr/0113)
    def follow(self, locations: Sequence[RootLocation], came: Collection[LocationId]) -> None:
        """From now on these are the locations; those that `came` have no root yet."""
        self._locations = tuple(locations)
        self.behind = {location for location in self.behind | set(came) if self._book.knows(location)}
        self._memory.overdue = {
            location: due for location, due in self._memory.overdue.items() if self._book.knows(location)
        }

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
                if before is not None:  # it has missed every deletion since
                    self._memory.overdue.setdefault(location, set()).update(_expired(before, root.generation))
                    self._memory.keep(self.known)
                await self._book.put_both(location, root, box)
            except QssError:
                continue
            if self.last is not root:
                return  # a newer one was published meanwhile, and knows by itself who misses it
            self.behind.discard(location)
        await self._book.drop(self._memory.overdue)

    async def _commit(self, root: Root, box: bytes) -> Root:
        there = await self._book.claim(root, box)  # 1. claim the generation
        ours = [place for place, found in there.items() if isinstance(found, Root) and found.digest() == root.digest()]
        if len(ours) < self._book.majority:
            await self._contest(root, box, there, len(ours))
        current = await self._book.put_current(box)  # 2. where readers start; whoever asks a majority sees who has won
        shown = sum(error is None for error in current.values())
        if shown < self._book.majority:
            raise Unreachable(f"root {root.generation} is shown by {shown} of {self._book.majority} locations")
        self._memory.committed(root, root.epoch)  # 3. never go back behind this one
        self._pending = None
        self.last, self._box = root, box
        self.behind = (set(there) - set(ours)) | {place for place, error in current.items() if error is not None}
        self._expire(root.generation, root.generation)
        await self._book.drop(self._memory.overdue)
        return root

    async def _contest(self, root: Root, box: bytes, there: Mapping[LocationId, Root | QssError], ours: int) -> None:
        """No majority. Others may have written this generation: they have won with a majority, or, once every location
        shows a root and none has one, with the greater of (epoch, votes, digest), which all machines see alike.

        Raises Unreachable while that is open, or when it is ours (then nothing else is there any more); else
        PreconditionFailed.
        """
        rivals = {place: found for place, found in there.items() if isinstance(found, Root)}
        rivals = {place: found for place, found in rivals.items() if found.digest() != root.digest()}
        few = f"root {root.generation} is at {ours} of {self._book.majority} locations"
        if not rivals:
            trouble = next((found for found in there.values() if isinstance(found, QssError)), None)
            raise Unreachable(f"{few}: {trouble}")
        votes = Counter(found.digest() for found in rivals.values())
        strength = {(found.epoch, votes[found.digest()], found.digest()) for found in rivals.values()}
        decided = ours + len(rivals) == len(there)
        if max(votes.values()) >= self._book.majority or (
            decided and max(strength) > (root.epoch, ours, root.digest())
        ):
            self._withdraw()
            self._memory.keep(self.known)
            raise PreconditionFailed(
                f"another machine has written root {root.generation}: this one must not write any more"
            )
        if decided:
            await self._book.replace(root, box, rivals)
        raise Unreachable(f"{few}: another machine writes it at the same time")

    def _withdraw(self) -> None:
        self._memory.withdraw()
        self._pending = None

    def _expire(self, first: int, last: int) -> None:
        for location in self._book.places:
            self._memory.overdue.setdefault(location, set()).update(_expired(first, last))

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


def _expired(first: int, last: int) -> range:
    """Generations whose time was over with the roots from `first` to `last`."""
    return range(max(1, first - HISTORY_KEPT), last - HISTORY_KEPT + 1)
