"""A real tree to copy, and a strict comparison of two trees."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def real_tree(target: Path, *, files_min: int, bytes_min: int) -> None:
    """Copy packages of this Python installation into `target` until both bounds are reached."""
    target.mkdir()
    files = size = 0
    sources = [Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib")), Path("/usr/share")]
    for source in (entry for base in sources for entry in sorted(base.iterdir())):
        if files >= files_min and size >= bytes_min:
            break
        if not source.is_dir() or source.is_symlink() or source.name == "site-packages":
            continue
        if (target / source.name).exists():
            continue
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)
        copied = [path for path in (target / source.name).rglob("*") if path.is_file() and not path.is_symlink()]
        files += len(copied)
        size += sum(path.stat().st_size for path in copied)
    assert files >= files_min, f"only {files} files found on {sys.prefix} and /usr/share"
    assert size >= bytes_min, f"only {size} bytes found on {sys.prefix} and /usr/share"


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below `root` with what `cp -a` keeps: type, mode, owner, size, time, link target."""
    facts: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        stat = path.lstat()
        link = str(path.readlink()) if path.is_symlink() else None
        size = stat.st_size if path.is_file() or link else 0
        facts[str(path.relative_to(root))] = (stat.st_mode, stat.st_uid, stat.st_gid, size, stat.st_mtime_ns, link)
    return facts


def assert_same_tree(left: Path, right: Path) -> None:
    """`diff -r` finds nothing, and names, owners, modes, times and links agree."""
    assert listing(left) == listing(right)
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", str(left), str(right)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
