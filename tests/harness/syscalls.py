"""Scripts of system calls, run in a directory and written down: `python -m tests.harness.syscalls DIR [as-it-is]`.

A script is text: steps parted by `;`, each `[USER:]CALL ARGUMENTS`. Standard input: a JSON list of scripts. Standard
output: for each, a list of [step, answer, what it moved], and last the picture of the tree. Needs root. Two
directories that behave the same give the same words; what must differ (inode numbers, the times themselves) is not
among them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = (0, 0, [])
USERS = {"u1": (1001, 1001, []), "u2": (1002, 1002, []), "g1": (1003, 1003, [1001])}
"""User, group, further groups."""

HOUR_NS = 3600 * 10**9
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
MOMENTS = {"now": (1 << 30) - 1, "omit": (1 << 30) - 2}
TAGS = {"u": (1, 2), "g": (4, 8), "m": (16, 16), "o": (32, 32)}


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def flags_of(text: str) -> int:
    """`RDWR|CREAT` or a number."""
    return sum({getattr(os, f"O_{name}") for name in text.split("|")})


def acl(text: str) -> bytes:
    """`u::rwx,u:1001:r--,g::r-x,m::rwx,o::---` as the kernel wants it."""
    entries = []
    for item in text.split(","):
        kind, who, perms = item.split(":")
        perm = sum(bit for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if letter in perms)
        entries.append((TAGS[kind][bool(who)], perm, int(who) if who else 0xFFFFFFFF))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))


def timespec(text: str) -> tuple[int, int]:
    if text in MOMENTS:
        return 0, MOMENTS[text]
    return divmod(int(text), 10**9)


class Caller:
    """One script's process state: open files and who is asking. Methods are the calls."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def close_all(self) -> None:
        for number in self.files.values():
            os.close(number)

    # -- names

    def create(self, path: str, mode: str = "644") -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, int(mode, 8)))

    def mkdir(self, path: str, mode: str = "755") -> None:
        os.mkdir(path, int(mode, 8))

    def mknod(self, kind: str, path: str, mode: str = "644", rdev: str = "0") -> None:
        types = {"f": stat.S_IFREG, "p": stat.S_IFIFO, "s": stat.S_IFSOCK, "c": stat.S_IFCHR, "b": stat.S_IFBLK}
        os.mknod(path, types[kind] | int(mode, 8), int(rdev))

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def link(self, old: str, new: str) -> None:
        os.link(old, new, follow_symlinks=False)

    def linkfollow(self, old: str, new: str) -> None:
        checked(libc.linkat(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), 0x400))

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def rename(self, old: str, new: str, flags: str = "0") -> None:
        checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), int(flags)))

    def readdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def chdir(self, path: str) -> None:
        os.chdir(path)

    def getcwd(self) -> str:
        return Path.cwd().name

    def same(self, one: str, other: str) -> bool:
        return os.stat(one).st_ino == os.stat(other).st_ino

    # -- attributes

    def chmod(self, path: str, mode: str) -> None:
        os.chmod(path, int(mode, 8))

    def chown(self, path: str, uid: str, gid: str) -> None:
        os.chown(path, int(uid), int(gid))

    def lchown(self, path: str, uid: str, gid: str) -> None:
        os.lchown(path, int(uid), int(gid))

    def access(self, path: str, mode: str) -> None:
        checked(libc.access(os.fsencode(path), int(mode)))

    def utimens(self, path: str, atime: str, mtime: str, follow: str = "1") -> None:
        pair = (ctypes.c_long * 4)(*timespec(atime), *timespec(mtime))
        checked(libc.utimensat(AT_FDCWD, os.fsencode(path), pair, 0 if follow == "1" else AT_SYMLINK_NOFOLLOW))

    def utimenow(self, path: str) -> None:
        checked(libc.utimensat(AT_FDCWD, os.fsencode(path), None, 0))

    def stat(self, path: str) -> list[int]:
        return shown(os.stat(path))

    def times(self, path: str) -> list[int | str]:
        row = os.lstat(path)
        now = time.time_ns()
        return ["now" if 0 <= now - each < HOUR_NS else each for each in (row.st_atime_ns, row.st_mtime_ns)]

    def umask(self, mask: str) -> None:
        os.umask(int(mask, 8))

    def setxattr(self, path: str, name: str, value: str, flags: str = "0") -> None:
        data = b"v" * int(value[1:]) if value.startswith("*") else b"" if value == "-" else value.encode()
        os.setxattr(path, name, data, int(flags), follow_symlinks=False)

    def getxattr(self, path: str, name: str, size: str = "65536") -> str:
        buffer = ctypes.create_string_buffer(int(size)) if size != "0" else None
        count = checked(libc.lgetxattr(os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(int(size))))
        return hashlib.sha256(buffer.raw[:count]).hexdigest()[:8] if buffer else str(count)

    def listxattr(self, path: str, size: str = "65536") -> list[str]:
        buffer = ctypes.create_string_buffer(int(size)) if size != "0" else None
        count = checked(libc.llistxattr(os.fsencode(path), buffer, ctypes.c_size_t(int(size))))
        return sorted(buffer.raw[:count].decode().split("\0")) if buffer else [str(count)]

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(path, name, follow_symlinks=False)

    def setacl(self, path: str, which: str, text: str) -> None:
        os.setxattr(path, f"system.posix_acl_{which}", acl(text))

    def getacl(self, path: str, which: str) -> str:
        return os.getxattr(path, f"system.posix_acl_{which}").hex()

    def rmacl(self, path: str, which: str) -> None:
        os.removexattr(path, f"system.posix_acl_{which}")

    # -- contents

    def open(self, path: str, flags: str, mode: str = "644") -> None:
        os.close(os.open(path, flags_of(flags), int(mode, 8)))

    def write(self, path: str, text: str, flags: str = "WRONLY") -> int:
        number = os.open(path, flags_of(flags))
        try:
            return os.write(number, text.encode())
        finally:
            os.close(number)

    def read(self, path: str) -> str:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return hashlib.sha256(os.read(number, 1 << 20)).hexdigest()[:8]
        finally:
            os.close(number)

    def truncate(self, path: str, size: str) -> None:
        checked(libc.truncate(os.fsencode(path), ctypes.c_long(int(size))))

    def execute(self, path: str) -> int:
        return subprocess.run([f"./{path}"], check=False, capture_output=True).returncode

    # -- open files

    def hold(self, name: str, path: str, flags: str, mode: str = "644") -> None:
        self.files[name] = os.open(path, flags_of(flags), int(mode, 8))

    def hclose(self, name: str) -> None:
        os.close(self.files.pop(name))

    def hwrite(self, name: str, text: str) -> int:
        return os.write(self.files[name], text.encode())

    def hpwrite(self, name: str, text: str, offset: str) -> int:
        return os.pwrite(self.files[name], text.encode(), int(offset))

    def hread(self, name: str, offset: str = "0", count: str = "100") -> str:
        return os.pread(self.files[name], int(count), int(offset)).decode("latin-1")

    def hseek(self, name: str, offset: str, whence: str) -> int:
        return os.lseek(self.files[name], int(offset), int(whence))

    def hstat(self, name: str) -> list[int]:
        return shown(os.fstat(self.files[name]))

    def hlist(self, name: str) -> list[str]:
        return sorted(os.listdir(self.files[name]))

    def htruncate(self, name: str, size: str) -> None:
        checked(libc.ftruncate(self.files[name], ctypes.c_long(int(size))))

    def hchmod(self, name: str, mode: str) -> None:
        os.fchmod(self.files[name], int(mode, 8))

    def hchown(self, name: str, uid: str, gid: str) -> None:
        os.fchown(self.files[name], int(uid), int(gid))

    def hxattr(self, name: str, attribute: str, value: str) -> None:
        os.setxattr(self.files[name], attribute, value.encode())

    def hutimens(self, name: str, atime: str, mtime: str) -> None:
        pair = (ctypes.c_long * 4)(*timespec(atime), *timespec(mtime))
        checked(libc.futimens(self.files[name], pair))

    def hsync(self, name: str) -> None:
        os.fsync(self.files[name])

    def hdatasync(self, name: str) -> None:
        os.fdatasync(self.files[name])

    def hsyncfs(self, name: str) -> None:
        checked(libc.syncfs(self.files[name]))

    def hopenat(self, name: str, path: str, flags: str) -> None:
        os.close(os.open(path, flags_of(flags), 0o644, dir_fd=self.files[name]))

    def hlink(self, name: str, path: str) -> None:
        """linkat of an open file (AT_EMPTY_PATH)."""
        checked(libc.linkat(self.files[name], b"", AT_FDCWD, os.fsencode(path), AT_EMPTY_PATH))

    def hreopen(self, name: str, flags: str) -> None:
        os.close(os.open(f"/proc/self/fd/{self.files[name]}", flags_of(flags)))

    def hallocate(self, name: str, mode: str, offset: str, length: str) -> None:
        checked(libc.fallocate(self.files[name], int(mode), ctypes.c_long(int(offset)), ctypes.c_long(int(length))))

    def hposixallocate(self, name: str, offset: str, length: str) -> None:
        os.posix_fallocate(self.files[name], int(offset), int(length))

    def hmap(self, name: str, length: str, text: str) -> str:
        """Write through a shared mapping; what a read of the file says then."""
        with mmap.mmap(self.files[name], int(length)) as memory:
            memory[: len(text)] = text.encode()
            return os.pread(self.files[name], int(length), 0).decode("latin-1")

    def hflock(self, name: str, how: str) -> None:
        fcntl.flock(self.files[name], getattr(fcntl, f"LOCK_{how}") | fcntl.LOCK_NB)

    def copyrange(self, source: str, target: str, count: str) -> int:
        return os.copy_file_range(self.files[source], self.files[target], int(count), 0, 0)

    def clone(self, source: str, target: str) -> None:
        fcntl.ioctl(self.files[target], 0x40049409, self.files[source])


def shown(row: os.stat_result) -> list[int]:
    directory = stat.S_ISDIR(row.st_mode)
    return [row.st_mode, row.st_nlink, row.st_uid, row.st_gid, row.st_rdev, -1 if directory else row.st_size]


def tree(root: Path) -> Iterator[Path]:
    yield root
    for folder, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            yield Path(folder, name)


def moments(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in tree(root):
        row = os.lstat(path)
        found[str(path.relative_to(root))] = (row.st_mtime_ns, row.st_ctime_ns, row.st_ino)
    return found


def moved(before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]) -> dict[str, str]:
    """Which times of what is still there went on: `m`, `c`."""
    found = {}
    for name, (mtime, ctime, ino) in after.items():
        if name in before and before[name][2] == ino:
            word = "m" * (mtime != before[name][0]) + "c" * (ctime != before[name][1])
            if word:
                found[name] = word
    return found


def picture(root: Path) -> dict[str, Any]:
    first: dict[int, str] = {}
    found: dict[str, Any] = {}
    for path in tree(root):
        row = os.lstat(path)
        name = str(path.relative_to(root))
        detail = ""
        if stat.S_ISREG(row.st_mode) and row.st_size < 1 << 20:
            detail = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        elif stat.S_ISLNK(row.st_mode):
            detail = os.readlink(path)
        xattrs = {
            each: hashlib.sha256(os.getxattr(path, each, follow_symlinks=False)).hexdigest()[:8]
            for each in sorted(os.listxattr(path, follow_symlinks=False))
        }
        found[name] = [*shown(row), first.setdefault(row.st_ino, name), detail, xattrs]
    return found


def become(who: tuple[int, int, list[int]]) -> None:
    uid, gid, groups = who
    os.setresuid(0, 0, 0)
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)


def answer(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def play(script: str, root: Path) -> list[Any]:
    """What each step answered and moved, and the picture at the end."""
    os.chdir(root)
    os.umask(0o022)
    caller = Caller()
    said: list[Any] = []
    before = moments(root)
    for step in filter(None, (part.strip() for part in script.split(";"))):
        who, colon, rest = step.partition(":")
        user = USERS.get(who) if colon else None
        call, *arguments = (rest if user else step).split()
        become(user or ROOT)
        got = answer(lambda call=call, arguments=arguments: getattr(caller, call)(*arguments))
        become(ROOT)
        after = moments(root)
        said.append([step, got, moved(before, after)])
        before = after
    said.append(picture(root))
    os.chdir("/")
    caller.close_all()
    return said


def main() -> None:
    folder = Path(sys.argv[1])
    said = []
    for number, script in enumerate(json.load(sys.stdin)):
        place = folder
        if len(sys.argv) == 2:
            place = folder / str(number)
            place.mkdir()
            place.chmod(0o777)
        said.append(play(script, place))
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
