"""What the kernel is told of the settings."""

from __future__ import annotations

from qss.config import MountSettings
from qss.fuse.mount import MountOptions
from qss.limits import KIB


def mount_options(mount: MountSettings) -> MountOptions:
    """What the kernel is told of the settings; quotas and access times are the file system's."""
    return MountOptions(
        read_only=mount.read_only, allow_other=mount.allow_other, writeback=mount.writeback_cache,
        nodev=mount.nodev, nosuid=mount.nosuid, noexec=mount.noexec, noatime=mount.atime == "noatime",
        uid=mount.uid, gid=mount.gid,
        read_ahead_kib=mount.read_ahead_bytes // KIB,
    )  # fmt: skip
