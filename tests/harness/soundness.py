"""For the end of any test that has used a cache: nothing that fsck checks may be wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fsck.check import check_index, segment_rows
from qss.fsck.findings import Finding, Kind, Report, run
from qss.fsck.offline import look
from qss.fsck.segments import Shelves, check_checkpoints, check_files, check_journals
from qss.host import Disk, Host

OF_A_FILE_SYSTEM = {
    Kind.ROOT_MISSING, Kind.INODE_INVALID, Kind.NEXT_INO, Kind.EXTENT_STRAY, Kind.EXTENT_BEYOND_END, Kind.ALLOCATED,
    Kind.XATTR_STRAY,
}  # fmt: skip


def findings_of(cache: SegmentCache) -> list[Finding]:
    return check_index(cache, cache.reach_of, Report()).findings


def assert_sound(cache: SegmentCache) -> None:
    """The open cache of a file system."""
    assert findings_of(cache) == []


def assert_files_sound(cache: SegmentCache, root: Path, disk: Disk) -> None:
    """Segments against files, for a cache that holds no file system."""
    report, shelves = Report(), Shelves(root, disk)
    run("files", check_files(shelves, segment_rows(cache)), report)
    run("journals", check_journals(shelves, segment_rows(cache)), report)
    run("checkpoints", check_checkpoints(shelves, segment_rows(cache)), report)
    assert report.findings == []


def offline_findings(root: Path, scratch: Path, options: CacheOptions, *, data: bool = True) -> list[Finding]:
    """A cache that nobody has open."""
    return look(root, Host(), options, scratch, data=data, on_stage=lambda _stage, _count: None).report.findings


def assert_logs_sound(root: Path, host: Host, options: CacheOptions) -> None:
    """A closed cache that holds no file system: index against logs, segments against files, every record."""
    with tempfile.TemporaryDirectory(prefix="qss-fsck-") as scratch:
        looked = look(root, host, options, Path(scratch) / "index", data=True, on_stage=lambda _stage, _count: None)
    assert looked.rows
    found = [each for each in looked.report.findings if each.kind not in OF_A_FILE_SYSTEM]
    assert found == [], found
