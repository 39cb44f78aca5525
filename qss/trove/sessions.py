"""Who is signed in at the console. In memory: a restart of the node signs everybody out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from qss.errors import Busy
from qss.host import Clock

LASTS_S: Final = 12 * 3600
SESSIONS_MAX: Final = 1000
FAILURES_MAX: Final = 20
FAILURES_WITHIN_S: Final = 60.0
_SECRET_BYTES: Final = 32
_NS: Final = 1_000_000_000


class Sessions:
    """`token` gives unguessable bytes."""

    def __init__(self, clock: Clock, token: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._token = token
        self._ends: dict[bytes, int] = {}  # digest of the secret: nanoseconds since 1970
        self._failures: deque[int] = deque(maxlen=FAILURES_MAX)

    def begin(self) -> str:
        """The secret of a new session. The oldest makes room when there are too many."""
        now = self._clock.now_ns()
        self._ends = {digest: end for digest, end in self._ends.items() if end > now}
        while len(self._ends) >= SESSIONS_MAX:
            del self._ends[next(iter(self._ends))]
        secret = self._token(_SECRET_BYTES).hex()
        self._ends[_digest(secret)] = now + LASTS_S * _NS
        return secret

    def holds(self, secret: str) -> bool:
        return self._ends.get(_digest(secret), 0) > self._clock.now_ns()

    def end(self, secret: str) -> None:
        self._ends.pop(_digest(secret), None)

    def check_patience(self) -> None:
        """Raises Busy while too many have failed to sign in: whoever guesses, guesses slowly."""
        now = self._clock.now_ns()
        if len(self._failures) == FAILURES_MAX and now - self._failures[0] < FAILURES_WITHIN_S * _NS:
            raise Busy("too many failed to sign in; wait a minute", retry_after_s=FAILURES_WITHIN_S)

    def note_failure(self) -> None:
        self._failures.append(self._clock.now_ns())


def _digest(secret: str) -> bytes:
    return blake3(secret.encode()).digest()
