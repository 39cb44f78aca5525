"""Sessions of the console: what opens one, how long, and what guessing costs."""

from __future__ import annotations

from itertools import count

import pytest

from qss.errors import Busy
from qss.trove.sessions import CLIENTS_MAX, FAILURES_MAX, FAILURES_WITHIN_S, LASTS_S, SESSIONS_MAX, Sessions
from tests.harness.trove_fronts import SetClock


def made() -> tuple[Sessions, SetClock]:
    clock, numbers = SetClock(), count(1)
    return Sessions(clock, lambda size: next(numbers).to_bytes(size, "big")), clock


def test_a_session_is_opened_by_its_secret_and_by_nothing_else() -> None:
    sessions, _ = made()
    secret, session = sessions.begin("AK")
    other, _ = sessions.begin("AK2")
    assert sessions.find(secret) == session
    assert session.access_key == "AK"
    for forged in (
        "",
        secret[:-1],
        secret + "0",
        secret.upper() + " ",
        session.mark,
        "ü\udcff",
        other[:8] + secret[8:-1],
    ):
        assert sessions.find(forged) is None
    assert session.is_marked(session.mark)
    for forged in ("", session.mark[:-1], secret, "ü"):
        assert not session.is_marked(forged)
    assert secret not in repr(session)
    assert session.mark not in repr(session)
    sessions.end(secret)
    sessions.end(secret)
    assert sessions.find(secret) is None
    assert sessions.find(other) is not None


def test_a_session_ends_by_itself() -> None:
    sessions, clock = made()
    secret, _ = sessions.begin("AK")
    clock.go(LASTS_S - 1)
    assert sessions.find(secret) is not None
    clock.go(1)
    assert sessions.find(secret) is None


def test_the_oldest_makes_room() -> None:
    sessions, _ = made()
    secrets = [sessions.begin("AK")[0] for _ in range(SESSIONS_MAX + 1)]
    assert sessions.find(secrets[0]) is None
    assert sessions.find(secrets[1]) is not None
    assert sessions.find(secrets[-1]) is not None


def test_who_guesses_waits_and_nobody_else_does() -> None:
    sessions, clock = made()
    for _ in range(FAILURES_MAX):
        sessions.check_patience("1.2.3.4")
        sessions.note_failure("1.2.3.4")
    with pytest.raises(Busy):
        sessions.check_patience("1.2.3.4")
    sessions.check_patience("1.2.3.5")
    clock.go(FAILURES_WITHIN_S)
    sessions.check_patience("1.2.3.4")
    for number in range(CLIENTS_MAX + 5):
        sessions.note_failure(f"host-{number}")
    assert len(sessions._failures) == CLIENTS_MAX
