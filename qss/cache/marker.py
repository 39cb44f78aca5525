"""`index-synced.json`: what was on the disk for certain when it was written. Made whole, synced, then renamed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from qss.cache.scan import READS_MAX
from qss.host import Host
from qss.ids import SEGMENT_ID_NONE, SegmentId

MARKER: Final = "index-synced.json"


class Marker(NamedTuple):
    """What it says. The file has a `check` besides. What is missing has its default: older versions wrote only
    the first two."""

    boot_id: str
    txnid: int  # of LMDB, synced
    digest: str = ""  # of LMDB's file, after a clean stop (qss.cache.index_file)
    starts: int = 0  # since the cache was last in use for a while, or stopped cleanly
    journal: SegmentId = SEGMENT_ID_NONE  # both logs were synced up to here
    journal_bytes: int = 0
    data: SegmentId = SEGMENT_ID_NONE
    data_bytes: int = 0


def read_marker(host: Host, root: Path) -> Marker | None:
    """The marker, or None if there is none that can be read. Raises OSError."""
    try:
        handle = host.disk.open(root / MARKER)
    except FileNotFoundError:
        return None
    try:
        for _ in range(READS_MAX):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                return _decoded(host.disk.pread(handle, 4096, 0))
        return None
    finally:
        host.disk.close(handle)


def _decoded(untrusted: bytes) -> Marker:
    found = json.loads(untrusted)
    if "check" in found and found.pop("check") != _check_of(found):
        raise ValueError("the marker does not verify")
    numbers = [int(found.get(name, 0)) for name in ("starts", "journal", "journal_bytes", "data", "data_bytes")]
    starts, journal, journal_bytes, data, data_bytes = numbers
    return Marker(
        str(found["boot_id"]), int(found["txnid"]), str(found.get("digest", "")), starts,
        SegmentId(journal), journal_bytes, SegmentId(data), data_bytes,
    )  # fmt: skip


def _check_of(found: dict[str, object]) -> str:
    return blake3(json.dumps(found, sort_keys=True).encode()).hexdigest(16)


def write_marker(host: Host, root: Path, marker: Marker) -> None:
    """Note durably what is synced. Blocks. Raises OSError, NoSpace."""
    disk, temporary = host.disk, root / (MARKER + ".new")
    with contextlib.suppress(FileNotFoundError):
        disk.remove(temporary)
    fields = marker._asdict()
    handle = disk.create(temporary)
    try:
        disk.pwrite(handle, [json.dumps(fields | {"check": _check_of(fields)}).encode()], 0)
        disk.sync_data(handle)
    finally:
        disk.close(handle)
    disk.rename(temporary, root / MARKER)
    disk.sync_dir(root)
