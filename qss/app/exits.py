"""Exit codes, the same for every command (docs/operations.md)."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

from qss.errors import Damaged, FsError, QssError, Refused, Retryable


class Exit(enum.IntEnum):
    OK = 0
    INTERNAL = 1  # our bug
    USAGE = 2  # wrong arguments
    REFUSED = 3  # the user must act: configuration, key, permission, space
    UNREACHABLE = 4  # not mounted, or a location does not answer
    DATA = 5  # data is damaged or lost, or could not be copied out
    CORRECTED = 10  # fsck: everything found was repaired
    FOUND = 11  # fsck, drill: something was found and is left; nothing is lost
    DIFFERENT = 12  # snapshot diff: something has changed


_TABLE = ((Refused, Exit.REFUSED), (FsError, Exit.REFUSED), (Retryable, Exit.UNREACHABLE), (Damaged, Exit.DATA))


def exit_of(error: QssError) -> Exit:
    return next((code for kind, code in _TABLE if isinstance(error, kind)), Exit.INTERNAL)


@contextmanager
def ungrouped() -> Iterator[None]:
    """Of several tasks that ended together, the one error that says what the user can do."""
    try:
        yield
    except ExceptionGroup as group:
        reasons = group.subgroup(QssError)
        while isinstance(reasons, ExceptionGroup):
            reasons = reasons.exceptions[0]  # type: ignore[assignment]
        if reasons is None:
            raise
        raise reasons from group
