"""One seed for everything that could go one way or another: trio's order of tasks, its clock, threads, random bytes.

`simulated` runs an async function so that the same seed gives the same trace, in any process. Threads become calls on
the loop with a pause before and after (shielded: a thread's work is not taken back when its caller is cancelled), as
long as the seed says. Nothing of the product is replaced but `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator

import trio
import trio.testing
from trio._core import _run as scheduler

START_NS = 1_800_000_000_000_000_000
THREAD_S_MAX = 0.01


class Trace:
    """What happened, line by line; two runs of one seed have the same digest."""

    def __init__(self, keep: bool = False) -> None:
        self.lines: list[str] | None = [] if keep else None
        self.count = 0
        self._hash = hashlib.blake2b()

    def add(self, text: str) -> None:
        line = f"{trio.current_time():.6f} {text}"
        self.count += 1
        self._hash.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()[:16]


class SimClock:
    """Implements qss.host.Clock: trio's clock, never the same twice."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._last = 0

    def now_ns(self) -> int:
        self._last = max(self._last + 1, START_NS + int(trio.current_time() * 1e9))
        return self._last

    def boot_id(self) -> str:
        return self._boot


class SimEntropy:
    """Implements qss.host.Entropy."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token(self, count: int) -> bytes:
        return self._rng.randbytes(count)


class CrashAtAwait(trio.abc.Instrument):
    """Calls `act` when so many more task steps have been made: between any two awaits of anything."""

    def __init__(self) -> None:
        self.steps = 0
        self._left: int | None = None
        self._act: Callable[[], None] = lambda: None

    def arm(self, steps: int, act: Callable[[], None]) -> None:
        self._left, self._act = steps, act

    def disarm(self) -> None:
        self._left = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._left = None
                self._act()


def simulated(seed: int, main: Callable[[CrashAtAwait], Awaitable[None]]) -> None:
    """Run `main` in time of its own."""
    crash = CrashAtAwait()
    with _seeded(seed):
        trio.run(main, crash, clock=trio.testing.MockClock(rate=0.0, autojump_threshold=0.0), instruments=[crash])


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    rng = random.Random(seed)

    async def run_sync(work, *args, limiter=None, **_options):
        await trio.lowlevel.checkpoint()
        async with limiter or contextlib.nullcontext():
            with trio.CancelScope(shield=True):
                await trio.sleep(rng.random() * THREAD_S_MAX)
                try:
                    return work(*args)
                finally:
                    await trio.sleep(rng.random() * THREAD_S_MAX)

    before = trio.to_thread.run_sync, scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    trio.to_thread.run_sync = run_sync  # type: ignore[assignment]
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        yield
    finally:
        trio.to_thread.run_sync = before[0]
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before[1]  # type: ignore[misc]
        scheduler._r.setstate(before[2])
