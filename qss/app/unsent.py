"""What was written after the last root of this machine: found by change times in the mounted tree, and copied out.

Names that were only deleted or moved are not shown; what a file was before is at the locations.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Final

MARGIN_NS: Final = 10**9
"""Too much is copied rather than too little: the clock of a cut and those of writers tick apart."""


def unsent(mountpoint: Path, published_cut_ns: int) -> list[Path]:
    """Files and symbolic links below `mountpoint`, relative to it, that changed since the cut, sorted."""
    found: list[Path] = []
    for folder, _, names in os.walk(mountpoint):
        for name in names:
            path = Path(folder, name)
            facts = path.lstat()
            kept = stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)
            if kept and facts.st_ctime_ns >= published_cut_ns - MARGIN_NS:
                found.append(path.relative_to(mountpoint))
    return sorted(found)


def copy_out(mountpoint: Path, paths: list[Path], into: Path) -> list[tuple[str, str]]:
    """Copy them, with times and modes; what could not be copied, and why. Nothing there is written over."""
    failed: list[tuple[str, str]] = []
    for path in paths:
        target = into / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target):
                failed.append((str(path), "there is such a file in the directory already"))
                continue
            shutil.copy2(mountpoint / path, target, follow_symlinks=False)
        except OSError as error:
            failed.append((str(path), str(error.strerror)))
    return failed
