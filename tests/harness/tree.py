"""A real tree to copy, and a strict comparison of two trees."""

from __future__ import annotations

import hashlib
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
    """Every path below `root` with what `cp -a` keeps: type, mode, owner, size, time, link target, content."""
    facts: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        stat = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = (stat.st_size, hashlib.file_digest(path.open("rb"), "sha256").hexdigest())
        facts[str(path.relative_to(root))] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, content)
    return facts


def assert_same_tree(left: Path, right: Path) -> None:
    """Names, owners, modes, times, links and contents agree; says which do not."""
    expected, found = listing(left), listing(right)
    assert expected.keys() == found.keys()
    assert {name: facts for name, facts in found.items() if facts != expected[name]} == {}
