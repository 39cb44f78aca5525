"""Which file system a state directory belongs to: a small file that says so, and the check against the key.

Without it a mount with an emptied state directory would begin an empty file system under the old key, and its roots
would shadow the ones that are worth recovering.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qss.app.running import write_whole
from qss.app.unlock import key_path, open_key
from qss.config import Settings
from qss.errors import CorruptData, Refused, WrongKey
from qss.offload.keys import MasterKey, fs_id_of


@dataclass(frozen=True, slots=True)
class Identity:
    """`state/filesystem.json`."""

    fs_id: str  # hex
    created_ns: int  # wall clock, nanoseconds since 1970
    snapshot: str = ""  # recovered is only this snapshot: to be read, never written
    snapshot_row: bytes = b""  # its SnapshotRow


def identity_path(state: Path) -> Path:
    return state / "filesystem.json"


def write_identity(state: Path, identity: Identity) -> None:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    body: dict[str, Any] = {"fs_id": identity.fs_id, "created_ns": identity.created_ns}
    if identity.snapshot:
        body |= {"snapshot": identity.snapshot, "snapshot_row": identity.snapshot_row.hex()}
    write_whole(identity_path(state), json.dumps(body) + "\n", 0o600)


def read_identity(state: Path) -> Identity | None:
    """None if the state directory holds no file system. Raises CorruptData."""
    try:
        body = json.loads(identity_path(state).read_bytes())
        return Identity(
            fs_id=bytes.fromhex(body["fs_id"]).hex(),
            created_ns=int(body["created_ns"]),
            snapshot=str(body.get("snapshot", "")),
            snapshot_row=bytes.fromhex(body.get("snapshot_row", "")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{identity_path(state)} does not hold") from error


def check_key(settings: Settings) -> MasterKey:
    """The key of the file system in this state directory. Raises Refused (nothing there, no key), WrongKey."""
    identity = read_identity(settings.state)
    if identity is None:
        raise Refused(
            f"{settings.state} holds no file system: run qssctl init for a new one, or qssctl recover to bring one back"
        )
    master = open_key(settings)
    if fs_id_of(master).hex() != identity.fs_id:
        raise WrongKey(f"{key_path(settings)} is not the key of the file system in {settings.state}")
    return master


def unlocked(settings: Settings) -> Settings:
    """The same with the key in it: for commands that need it more than once, and must not ask twice. Raises as
    `check_key`."""
    return replace(settings, opened=check_key(settings))
