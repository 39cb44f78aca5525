from __future__ import annotations

import logging

from qss.app.log_limit import BURST, KINDS_MAX, WINDOW_S, LogLimit


def _record(message: str, at_s: float, name: str = "trove", *arguments: object) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, "f", 1, message, arguments, None)
    record.created = at_s
    return record


def test_a_flood_is_cut_and_counted() -> None:
    limit = LogLimit()
    passed = [limit.filter(_record("damage at %d", number / 1000, "trove", number)) for number in range(1000)]
    assert passed == [True] * BURST + [False] * (1000 - BURST)
    assert limit.filter(_record("something else", 1.0))
    assert limit.filter(_record("damage at %d", 1.0, "another", 1))
    later = _record("damage at %d", WINDOW_S, "trove", 7)
    assert limit.filter(later)
    assert later.getMessage() == f"damage at 7 ({1000 - BURST} more like this were left out)"
    quiet = _record("damage at %d", 3 * WINDOW_S, "trove", 8)
    assert limit.filter(quiet)
    assert quiet.getMessage() == "damage at 8"


def test_many_kinds_of_messages_take_no_more_memory() -> None:
    limit = LogLimit()
    assert all(limit.filter(_record(f"message {number}", 0.0)) for number in range(3 * KINDS_MAX))
    assert len(limit._seen) == KINDS_MAX
