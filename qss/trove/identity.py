"""Which node a set of directories is, and whether all of it is there: `trove.json` in each of them.

Each marker names the node, its own drive, and all drives of the node with their paths, under an epoch that rises with
every change of the list; the highest epoch is believed. So a drive that is not mounted is noticed, and an empty mount
point is not taken for a new drive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qss.errors import ConfigInvalid, Refused
from qss.host import Host
from qss.trove.durable import beside, replace_durably

MARKER: Final = "trove.json"
LOCK: Final = "trove.lock"
FORMAT: Final = 2
_UNNAMED: Final = "path:"
"""Begins what stands for the name of a drive whose marker is of format 1, which had none."""
SET_ASIDE: Final = "set-aside"
"""Where `trove repair` puts volumes it has emptied: not the node's any more, and never deleted by it."""
_NOT_CONTENT: Final = (LOCK, "lost+found", "probe.tmp", SET_ASIDE, beside(Path(MARKER)).name)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the markers say. `here` maps drive ids to directories, `missing` to where they were last."""

    node: str | None  # hex; None: none of the directories has been used
    epoch: int
    here: dict[str, Path]
    fresh: tuple[Path, ...]  # empty or absent: drives to be
    missing: dict[str, Path]
    stale: bool  # a marker does not say what is true now

    @property
    def present(self) -> list[Path]:
        """Directories that may be written to."""
        return [*self.here.values(), *self.fresh]


def survey(data: Sequence[Path]) -> Survey:
    """Look, and change nothing. Raises Refused for directories that are not a Trove's or not of one node."""
    markers = {path: marker for path in data if (marker := _marker(path)) is not None}
    nodes = {marker["node"] for marker in markers.values()}
    if len(nodes) > 1:
        raise ConfigInvalid("the --data directories belong to different nodes")
    epoch = max((marker["epoch"] for marker in markers.values()), default=0)
    known: dict[str, Path] = {}
    for marker in markers.values():
        if marker["epoch"] == epoch:
            known = {str(drive): Path(path) for drive, path in marker["drives"].items()}
    here: dict[str, Path] = {}
    for path, marker in markers.items():
        if marker["drive"] in here:
            raise Refused(f"{path} is a copy of {here[marker['drive']]}; give only one of them")
        if epoch and marker["drive"] not in known and not marker["drive"].startswith(_UNNAMED):
            raise Refused(f"{path} was given up by this node; remove what is in it with --clean-slate to use it again")
        here[marker["drive"]] = path
    missing = {drive: path for drive, path in known.items() if drive not in here}
    bare = [path for path in data if path not in markers]
    fresh = tuple(path for path in bare if path.absolute() not in {each.absolute() for each in missing.values()})
    stale = bool(fresh) or any(marker["epoch"] != epoch or not epoch for marker in markers.values())
    stale = stale or any(known.get(drive) != path.absolute() for drive, path in here.items())
    return Survey(nodes.pop() if nodes else None, epoch, here, fresh, missing, stale)


def _marker(directory: Path) -> dict[str, Any] | None:
    """The marker of a directory; None: it is empty or not there. Raises Refused."""
    marker = directory / MARKER
    try:
        content = marker.read_bytes()
    except FileNotFoundError:
        if directory.is_dir() and any(name not in _NOT_CONTENT for name in os.listdir(directory)):
            raise Refused(f"{directory} is neither empty nor a Trove's; give another --data") from None
        return None
    except OSError as error:
        raise Refused(f"{marker} cannot be read: {error.strerror}; leave this drive out") from error
    try:
        value = json.loads(content)
        node = str(value["node"])
        if value["format"] == 1:  # before drives had names: its path will do
            return {"node": node, "epoch": 0, "drive": f"{_UNNAMED}{directory.absolute()}", "drives": {}}
        bytes.fromhex(node)
        return {"node": node, "epoch": int(value["epoch"]), "drive": value["drive"], "drives": dict(value["drives"])}
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{marker} is damaged; put back its content or start with --clean-slate") from None


def require_all(found: Survey, data: Sequence[Path], *, allow_missing: bool) -> None:
    """Raises Refused when drives are missing and that was not allowed, or the first one is."""
    if not found.missing:
        return
    where = ", ".join(str(path) for path in found.missing.values())
    if data[0] not in found.present:
        raise Refused(f"the first --data holds index and keys, and its drive is missing: mount {data[0]}")
    if not allow_missing:
        raise Refused(
            f"drives of this node are missing: {where}. Mount them, or go on without what is on them: --allow-missing; "
            "trove repair --forget-missing gives them up for good"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """A node and its drives, in the order of --data; those that are missing behind."""

    node: bytes  # 16
    drives: list[tuple[str, Path]]
    missing: dict[str, Path]


def settle(found: Survey, data: Sequence[Path], host: Host, *, forget: bool = False) -> Identity:
    """Give names to what has none and write them down. `forget`: missing drives are given up. The directories are
    there, and the caller holds their locks.

    Each new drive has a marker before another one names it: after a crash between, it is new still, not missing.
    """
    node = found.node or host.entropy.token(16).hex()
    named = {path: drive for drive, path in found.here.items() if not drive.startswith(_UNNAMED)}
    missing = {} if forget else found.missing
    known = {drive: str(path.absolute()) for path, drive in named.items()}
    known |= {drive: str(path.absolute()) for drive, path in missing.items()}
    epoch = found.epoch
    drives: list[tuple[str, Path]] = []
    for path in (path for path in data if path in found.present):
        drive = named.get(path) or host.entropy.token(16).hex()
        drives.append((drive, path))
        if drive not in known:
            epoch += 1
            known[drive] = str(path.absolute())
            _write_marker(path, {"node": node, "drive": drive, "epoch": epoch, "drives": known})
    if found.stale or (forget and found.missing):
        for drive, path in drives:
            try:
                _write_marker(path, {"node": node, "drive": drive, "epoch": epoch + 1, "drives": known})
            except Refused:
                if path == data[0]:
                    raise  # another one may be read-only: the highest epoch is believed
    return Identity(bytes.fromhex(node), drives, missing)


def _write_marker(directory: Path, value: dict[str, Any]) -> None:
    try:
        replace_durably(directory / MARKER, json.dumps({"format": FORMAT} | value).encode())
    except OSError as error:
        raise Refused(f"{directory} cannot be written: {error.strerror}") from error
