"""POSIX access control lists as Linux keeps them in extended attributes. Pure.

Source of the format: include/uapi/linux/posix_acl_xattr.h: u32 version 2, then entries of u16 tag, u16 permissions,
u32 id, all little-endian, sorted by tag, then id. Source of the rules: acl(5), IEEE 1003.1e draft 17.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from qss.errors import CorruptData

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20

_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_KNOWN: Final = {USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER}


class Entry(NamedTuple):
    tag: int
    perm: int  # rwx bits, 0..7
    id: int


def decode(untrusted: bytes) -> list[Entry]:
    """Raises CorruptData when it is no valid list (acl(5): one of each object entry, a mask where named ones are)."""
    if untrusted[:4] != _VERSION or (len(untrusted) - 4) % _ENTRY.size:
        raise CorruptData("not an access control list")
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(untrusted[4:])]
    tags = [entry.tag for entry in entries]
    if any(entry.tag not in _KNOWN or entry.perm > 7 for entry in entries) or tags != sorted(tags):
        raise CorruptData("an access control list has an unknown or misplaced entry")
    named = [(entry.tag, entry.id) for entry in entries if entry.tag in {USER, GROUP}]
    once = all(tags.count(tag) == 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) and tags.count(MASK) <= 1
    if not once or len(set(named)) != len(named) or (named and MASK not in tags):
        raise CorruptData("an access control list lacks an entry or has one twice")
    return entries


def encode(entries: list[Entry]) -> bytes:
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def minimal(entries: list[Entry]) -> bool:
    """Whether the permission bits say all of it, so that nothing need be stored."""
    return len(entries) == 3


def mode_of(entries: list[Entry], mode: int) -> int:
    """The mode whose permission bits show this access list."""
    perms = {entry.tag: entry.perm for entry in entries}
    group = perms.get(MASK, perms[GROUP_OBJ])
    return (mode & ~0o777) | perms[USER_OBJ] << 6 | group << 3 | perms[OTHER]


def with_mode(entries: list[Entry], mode: int) -> list[Entry]:
    """The access list after chmod(mode)."""
    group_tag = MASK if any(entry.tag == MASK for entry in entries) else GROUP_OBJ
    new = {USER_OBJ: mode >> 6 & 7, group_tag: mode >> 3 & 7, OTHER: mode & 7}
    return [entry._replace(perm=new.get(entry.tag, entry.perm)) for entry in entries]


def inherited(default: list[Entry], mode: int) -> tuple[list[Entry], int]:
    """The access list and the mode of an inode created with `mode` in a directory with this default list."""
    group_tag = MASK if any(entry.tag == MASK for entry in default) else GROUP_OBJ
    allowed = {USER_OBJ: mode >> 6 & 7, group_tag: mode >> 3 & 7, OTHER: mode & 7}
    entries = [entry._replace(perm=entry.perm & allowed.get(entry.tag, 7)) for entry in default]
    return entries, mode_of(entries, mode)
