"""Who is signed in at the console. In memory: a restart of the node signs everybody out."""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from qss.errors import Busy
from qss.host import Clock

LASTS_S: Final = 12 * 3600
SESSIONS_MAX: Final = 1000
FAILURES_MAX: Final = 20
FAILURES_WITHIN_S: Final = 60.0
CLIENTS_MAX: Final = 1000
"""Addresses whose failures are remembered."""
_SECRET_BYTES: Final = 32
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Session:
    """`mark` is what our page adds to whatever changes something, and no other page can know."""

    access_key: str
    ends_ns: int
    mark: str = field(repr=False)

    def is_marked(self, given: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(given.encode(), self.mark.encode())


class Sessions:
    """`token` gives unguessable bytes. A session is kept by the hash of its secret."""

    def __init__(self, clock: Clock, token: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._token = token
        self._sessions: dict[bytes, Session] = {}
        self._failures: dict[str, deque[int]] = {}

    def begin(self, access_key: str) -> tuple[str, Session]:
        """A new session and its secret. The oldest makes room when there are too many."""
        now = self._clock.now_ns()
        self._sessions = {digest: each for digest, each in self._sessions.items() if each.ends_ns > now}
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        secret = self._token(_SECRET_BYTES).hex()
        made = Session(access_key, now + LASTS_S * _NS, self._token(_SECRET_BYTES).hex())
        self._sessions[_digest(secret)] = made
        return secret, made

    def find(self, secret: str) -> Session | None:
        """The session that this secret opens now."""
        found = self._sessions.get(_digest(secret))
        return found if found is not None and found.ends_ns > self._clock.now_ns() else None

    def end(self, secret: str) -> None:
        self._sessions.pop(_digest(secret), None)

    def check_patience(self, client: str) -> None:
        """Raises Busy while too many from this address have failed to sign in: whoever guesses, guesses slowly."""
        failures = self._failures.get(client)
        if failures is None or len(failures) < FAILURES_MAX:
            return
        if self._clock.now_ns() - failures[0] < FAILURES_WITHIN_S * _NS:
            raise Busy("too many failed to sign in; wait a minute", retry_after_s=FAILURES_WITHIN_S)

    def note_failure(self, client: str) -> None:
        """The address that failed longest ago is forgotten when there are too many."""
        failures = self._failures.pop(client, None) or deque(maxlen=FAILURES_MAX)
        failures.append(self._clock.now_ns())
        while len(self._failures) >= CLIENTS_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures[client] = failures


def _digest(secret: str) -> bytes:
    return blake3(secret.encode(errors="surrogateescape")).digest()
