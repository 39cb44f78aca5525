"""How the roots at the locations stand to what this machine remembers: may it go on where it was? Pure. ADR 0120.

AS_KNOWN      nobody has written since                                     go on
OURS          what this machine was about to publish when it crashed       finish it, go on
OVERTAKEN     somebody has written since: another machine, or a copy       only read
ROLLED_BACK   the locations show less than this machine has published      refuse, or the user insists
FORKED        two histories                                                refuse, or the user insists
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qss.errors import PreconditionFailed, QssError, Refused
from qss.formats.root import Root

NO_DIGEST: Final = bytes(32)
"""Stands for no root at all."""


@dataclass(frozen=True, slots=True)
class Known:
    """What this machine remembers of the last root it published or adopted."""

    generation: int
    epoch: int
    digest: bytes
    writer: bytes
    next_epoch: int  # of the roots this machine writes: one more than `epoch` after it took over
    claim: bytes = NO_DIGEST  # of the root it was about to publish, or is


class History(enum.Enum):
    AS_KNOWN = enum.auto()
    OURS = enum.auto()
    OVERTAKEN = enum.auto()
    ROLLED_BACK = enum.auto()
    FORKED = enum.auto()


def judge(known: Known, newest: Root | None, current: Sequence[Root], before: Sequence[Root]) -> History:
    """`newest`: at the locations. `current`: what each shows as its current root. `before`: the different roots they
    hold for the generation this machine knows last."""
    if newest is None:
        return History.AS_KNOWN if known.digest == NO_DIGEST else History.ROLLED_BACK
    if any(root.order == newest.order and root.digest() != newest.digest() for root in current):
        return History.FORKED
    if newest.digest() == known.digest:
        return History.AS_KNOWN
    if newest.digest() == known.claim:
        return History.OURS
    if newest.order < (known.epoch, known.generation):
        return History.ROLLED_BACK
    if newest.order == (known.epoch, known.generation) and known.generation:
        return History.FORKED
    if newest.writer != known.writer:
        return History.OVERTAKEN
    if newest.epoch != known.next_epoch and known.generation:
        return History.OVERTAKEN
    if newest.generation > known.generation + 1:
        return History.OVERTAKEN  # a copy of this directory wrote these
    if newest.previous != known.digest or (before and all(root.digest() != known.digest for root in before)):
        return History.FORKED
    return History.OVERTAKEN  # ours is written down before it is claimed: a copy of this directory wrote this one


def refusal(history: History, known: Known, newest: Root | None) -> QssError | None:
    """What the user is told; None: nothing is in the way."""
    generation = newest.generation if newest else 0
    match history:
        case History.OVERTAKEN:
            whose = "another machine" if newest and newest.writer != known.writer else "a copy of this state directory"
            return PreconditionFailed(
                f"{whose} has written root {generation} of this file system, and this one knows root"
                f" {known.generation}: this one must not write any more; unmount it here, or recover here to take over"
            )
        case History.ROLLED_BACK:
            return Refused(
                f"the newest root at the locations is generation {generation}, but this machine has published"
                f" {known.generation}: the locations were set back to an older state; nothing was changed"
                " (mount --accept-rollback writes there again what this machine knows)"
            )
        case History.FORKED:
            return Refused(
                f"the locations hold another history than this machine: root {generation} there does not go with root"
                f" {known.generation} here; nothing was changed (mount --accept-rollback goes on with what is here)"
            )
    return None
