"""How the free space of locations weighs in placement. Pure.

A location that says how much it can take yet weighs its configured weight times that; one that does not say weighs as
if it were typical of those that do. Free space changes with every shard, and placement is to move little: so it counts
in steps of a quarter, and a step is left only when the space is clearly beyond it. docs/adr/0127.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STEP: Final = 1.25
"""From one step of free space to the next."""
STICK: Final = 0.75
"""Steps that free space must be away from the one it counts as; nearest is half a step."""
assert STICK > 0.5


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of one location."""

    free_bytes: int | None = None  # as it said last; None: it does not say
    level: int = 0  # of its weight: STEP**level bytes

    def heard(self, free_bytes: int | None) -> Room:
        """It says so now."""
        if not free_bytes:
            return Room(free_bytes, self.level)
        exact = math.log(free_bytes, STEP)
        stays = bool(self.free_bytes) and abs(exact - self.level) <= STICK
        return Room(free_bytes, self.level if stays else round(exact))

    @property
    def full(self) -> bool:
        """It would refuse whatever is put there."""
        return self.free_bytes == 0


def weights(places: Sequence[tuple[float, Room]]) -> list[float]:
    """Weights for placement from (configured weight, room), in order. Only their relations mean anything: where nobody
    says anything, or all say the same, they are those of the configuration."""
    levels = [room.level for _, room in places if room.free_bytes]
    typical = statistics.median_low(levels) if levels else 0
    return [
        configured * STEP ** ((room.level - typical) if room.free_bytes else 0) for configured, room in places
    ]  # fmt: skip
