"""What file system and kernel are told of the settings."""

from __future__ import annotations

import os

from qss.config import MountSettings
from qss.fs.filesystem import FsOptions
from qss.fs.quota import Quota
from qss.fuse.mount import MountOptions
from qss.limits import KIB


def fs_options(mount: MountSettings) -> FsOptions:
    """What the file system is told of the settings. Who makes a file system owns its root directory."""
    quota = Quota(mount.quota_bytes, mount.quota_inodes)
    return FsOptions(mount.read_only, mount.atime, root_owner=(os.geteuid(), os.getegid()), quota=quota)


def mount_options(mount: MountSettings) -> MountOptions:
    """What the kernel is told of the settings; quotas and access times are the file system's."""
    return MountOptions(
        read_only=mount.read_only, allow_other=mount.allow_other, writeback=mount.writeback_cache,
        nodev=mount.nodev, nosuid=mount.nosuid, noexec=mount.noexec, noatime=mount.atime == "noatime",
        uid=mount.uid, gid=mount.gid,
        read_ahead_kib=mount.read_ahead_bytes // KIB,
    )  # fmt: skip
