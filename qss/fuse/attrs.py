"""Our attributes ↔ pyfuse3's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyfuse3

from qss.fs.attrs import BLOCK_BYTES, Attributes, SetAttributes, SpaceFigures
from qss.limits import NAME_BYTES_MAX

ATTRIBUTES_VALID_S: Final = 3600.0
"""How long the kernel may answer from memory. Nobody but this mount changes anything, so for long."""
NEGATIVE_VALID_S: Final = 3600.0


def entry_of(attributes: Attributes) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    (
        entry.st_ino, entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid, entry.st_rdev, entry.generation,
        entry.st_size, entry.st_blocks, entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns,
    ) = attributes  # fmt: skip
    entry.st_blksize = BLOCK_BYTES
    entry.entry_timeout = entry.attr_timeout = ATTRIBUTES_VALID_S
    return entry


def owned_by(uid: int | None, gid: int | None) -> Callable[[Attributes], pyfuse3.EntryAttributes]:
    """As `entry_of`, with another owner; None: the stored one."""

    def shown(attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = entry_of(attributes)
        if uid is not None:
            entry.st_uid = uid
        if gid is not None:
            entry.st_gid = gid
        return entry

    return shown


def negative_entry() -> pyfuse3.EntryAttributes:
    """The kernel may remember that there is no such name."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = NEGATIVE_VALID_S
    return entry


def change_of(
    entry: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, *, kernel_keeps_times: bool, unprivileged: bool
) -> SetAttributes:
    return SetAttributes(
        mode=entry.st_mode if fields.update_mode else None,
        uid=entry.st_uid if fields.update_uid else None,
        gid=entry.st_gid if fields.update_gid else None,
        size=entry.st_size if fields.update_size else None,
        atime_ns=entry.st_atime_ns if fields.update_atime else None,
        mtime_ns=entry.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=entry.st_ctime_ns if fields.update_ctime and kernel_keeps_times else None,
        unprivileged=unprivileged,
    )


def statvfs_of(figures: SpaceFigures) -> pyfuse3.StatvfsData:
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = BLOCK_BYTES
    data.f_blocks = figures.total_bytes // BLOCK_BYTES
    data.f_bfree = figures.free_bytes // BLOCK_BYTES
    data.f_bavail = figures.available_bytes // BLOCK_BYTES
    data.f_files = figures.inodes
    data.f_ffree = data.f_favail = figures.free_inodes
    data.f_namemax = NAME_BYTES_MAX
    return data
