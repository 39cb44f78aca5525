"""How many bytes of new objects a node takes before it refuses them."""

from __future__ import annotations

from qss.trove.drives import RESERVE_BYTES
from qss.trove.volumes import VolumeSet


def free_bytes(volumes: VolumeSet) -> int:
    """Of all drives that take writes, less what is kept back. Directories of one file system count once; one that
    cannot be asked counts nothing."""
    rooms: dict[int, int] = {}
    for drive in volumes.drives:
        if not drive.writable:
            continue
        try:
            rooms[drive.path.stat().st_dev] = volumes.disk.free_bytes(drive.path)[0]
        except OSError:
            continue
    return sum(max(0, room - RESERVE_BYTES) for room in rooms.values())
