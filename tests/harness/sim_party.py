"""One of several machines of a simulation that know the same file system: mounted again and again, as long as its
operator wants, by users who take a no (EROFS) for an answer."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import trio

from qss.errors import FsError, QssError
from tests.harness.crash_world import Picture
from tests.harness.sim_commands import admit, fence_of
from tests.harness.sim_machine import Machine, SimWorld
from tests.harness.sim_time import CrashAtAwait, Trace
from tests.harness.sim_users import Users

PAUSE_S = 20.0
"""Between attempts to mount."""


class Party(Users):
    """A machine, its users, and where what they see comes from."""

    refusals = (*Users.refusals, errno.EROFS)

    def __init__(self, machine: Machine, crash: CrashAtAwait, rng: random.Random, trace: Trace, steps: int) -> None:
        super().__init__(machine, crash, rng, trace, steps)
        self.origin: tuple[Party, int] | None = None  # whose state it began with, and which of them
        self.insists = False  # mount --take-over, until it is mounted
        self.find_origin: Callable[[Picture], None] | None = None  # of a recovered one: at its first look
        self.drive: Callable | None = None  # in place of users
        self.refused = ""  # why it was not mounted
        self.ended = trio.Event()

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def fenced(self) -> str:
        return fence_of(self.machine)

    @property
    def writes(self) -> bool:
        """It is mounted, and nobody has told it not to."""
        return self.machine.offload is not None and not self.machine.offload.tenure.fenced

    async def run(self) -> None:
        """Until it is asked to leave."""
        while not self.leaving:
            if await self._admitted():
                await self.life(self.drive and (lambda world: self.after_start(world, self.drive)))
                await trio.sleep(1 + self._rng.random() * 5)
            else:
                await trio.sleep(PAUSE_S)
        self.ended.set()

    async def leave(self) -> None:
        """Unmount, in order; when it has died meanwhile, it stays so."""
        self.leaving = True
        await self.ended.wait()
        self.leaving, self.ended = False, trio.Event()

    async def _admitted(self) -> bool:
        try:
            said = await admit(self.machine, take_over=self.insists)
        except QssError as error:
            self.refused = str(error)
            self._trace.add(f"{self.name} is refused: {error}")
            self.seen["a mount is refused"] += 1
            if "most locations do not answer" not in self.refused:
                self.insists = False
            return False
        self.refused = ""
        self.insists = False
        self._trace.add(f"{self.name} is mounted {said and f'with a warning: {said}'}")
        return True

    async def after_start(self, world: SimWorld, then: Callable) -> None:
        if self.find_origin is not None:
            self.find_origin(await self.look(world))
            self.find_origin = None
        try:
            await super().after_start(world, then)
        except FsError as error:
            if error.errno != errno.EIO or not self.fenced:
                raise
            self.seen["what another has deleted is not there"] += 1
