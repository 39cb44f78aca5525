"""A whole file system as `qssctl` makes and mounts it, on three buckets of one Trove: for tests of its life."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qss.trove.testing import TroveServer

QSSCTL = Path(sys.executable).parent / "qssctl"
WAIT_S = 120


class Whole:
    """Directory, key, configuration and mountpoint belong to `user`, who also runs every command."""

    def __init__(self, folder: Path, trove: TroveServer, namespace: int, user: str) -> None:
        self.folder = folder
        self.trove = trove
        self.namespace = namespace  # process that keeps it
        self.user = pwd.getpwnam(user)
        self.config, self.key, self.mnt = folder / "qss.toml", folder / "key", folder / "mnt"
        self.mnt.mkdir()
        secret = folder / "secret"
        secret.write_text(trove.secret_key)
        secret.chmod(0o600)
        for path in (folder, self.mnt, secret):
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self.qssctl("key", "new", "--out", str(self.key))
        access = f"access_key={trove.access_key}&secret_key_file={secret}"
        chosen = [part for n in "123" for part in ("--location", f"{trove.endpoint}/qss{n}?name=at{n}&{access}")]
        state = ("--state", str(folder / "state"), "--mountpoint", str(self.mnt))
        self.qssctl("init", *chosen, "--k", "2", "--m", "1", "--key", str(self.key), *state)

    @property
    def enter(self) -> list[str]:
        """Before a command: in the name space of mounts where all this happens."""
        return ["nsenter", f"--mount=/proc/{self.namespace}/ns/mnt", "--"]

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As the user, who has no capability that root has."""
        done = subprocess.run(
            [*self.enter, *become(self.user), *map(str, command)], capture_output=True, text=True, timeout=WAIT_S,
            env={**os.environ, "HOME": str(self.folder)}, cwd="/", check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def qssctl(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(QSSCTL, "--config", self.config, *arguments, check=check)

    @property
    def pid(self) -> int:
        return int((self.folder / "state" / "run" / "mount.pid").read_text())

    def mount_options(self) -> set[str]:
        """As the kernel has them; empty: not mounted."""
        for line in Path(f"/proc/{self.namespace}/mounts").read_text().splitlines():
            if line.split()[1] == str(self.mnt):
                return set(line.split()[3].split(","))
        return set()

    def is_mounted(self) -> bool:
        return bool(self.mount_options())

    def close(self) -> None:
        if self.is_mounted():
            self.qssctl("umount", "--lazy", "--drain", "1s", check=False)


def become(user: pwd.struct_passwd) -> list[str]:
    """Before a command: run it as this user. Where our Python lies in a closed directory, with the right to look into
    those, and no other."""
    if not user.pw_uid:
        return []
    command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if not all(path.stat().st_mode & 1 for path in Path(sys.executable).resolve().parents):
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return command


@contextmanager
def name_space(folder: Path) -> Iterator[int]:
    """A process in a name space of mounts of its own, where everybody may open /dev/fuse, as udev has it. What is
    mounted there goes with it."""
    device = folder / "fuse"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    device.chmod(0o666)
    script = 'mount --bind "$0" /dev/fuse && echo ready && exec cat'
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(device)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid


@contextmanager
def whole(user: str = "root") -> Iterator[Whole]:
    """Made and not mounted; whatever happens, nothing is mounted or running afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="qss-whole-"))  # pytest's own directories are closed to other users
    folder.chmod(0o755)
    try:
        with TroveServer(data=folder / "trove") as trove, name_space(folder) as namespace:
            made = Whole(folder, trove, namespace, user)
            try:
                yield made
            finally:
                made.close()
    finally:
        shutil.rmtree(folder)
