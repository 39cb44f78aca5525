"""The outside world as arguments: disk, clock, entropy. Tests pass others, to cut the power or stop time."""

from __future__ import annotations

from dataclasses import dataclass, field

from qss.host.clock import Clock, SystemClock
from qss.host.disk import Disk, PosixDisk
from qss.host.entropy import Entropy, SystemEntropy


@dataclass(frozen=True, slots=True)
class Host:
    """Everything qss.cache may ask of the machine."""

    disk: Disk = field(default_factory=PosixDisk)
    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)


__all__ = ["Clock", "Disk", "Entropy", "Host", "PosixDisk", "SystemClock", "SystemEntropy"]
