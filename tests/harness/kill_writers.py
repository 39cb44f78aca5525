"""Several writers on a mount that will be killed, each with a ledger on the native disk.

`python -m tests.harness.kill_writers MNT LEDGERS SEED`: every thread works in a directory of its own, one system call
an operation; it notes what it is about to do, and then that it was answered. It ends when the mount does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

WRITERS = 4
FILES_MAX = 25
WRITE_BYTES_MAX = 60_000  # one request of the kernel

Tree = dict[str, bytes]
Note = dict[str, Any]


def content_of(note: Note) -> bytes:
    """The bytes of a write: they follow from its note."""
    return random.Random(note["seed"]).randbytes(note["count"])


def apply(tree: Tree, note: Note, written: int | None = None) -> None:
    """What an operation does to the files of one writer. `written`: so much of a write, if not all."""
    match note["op"]:
        case "create":
            tree[note["name"]] = b""
        case "write":
            before, at, data = tree[note["name"]], note["at"], content_of(note)[:written]
            tree[note["name"]] = before.ljust(at, b"\0")[:at] + data + before[at + len(data) :]
        case "truncate":
            tree[note["name"]] = tree[note["name"]][: note["size"]].ljust(note["size"], b"\0")
        case "rename":
            tree[note["to"]] = tree.pop(note["name"])
        case "unlink":
            del tree[note["name"]]
        case "fsync":
            pass


class Writer:
    def __init__(self, folder: Path, ledger: Path, seed: str) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.seed = seed
        self.ledger = ledger.open("w", buffering=1)
        self.number = 0

    def work(self) -> None:
        """Until the mount is gone."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            self.sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
            while True:
                self.number += 1
                note = self._next()
                self.ledger.write(json.dumps(note) + "\n")
                self._do(note)
                self.ledger.write("done\n")

    def _next(self) -> Note:
        rng, names = self.rng, sorted(self.sizes)
        name = rng.choice(names) if names else ""
        kinds = ["write"] * 8 + ["truncate", "rename", "rename", "unlink", "fsync", "fsync"]
        if not names or (len(names) < FILES_MAX and rng.random() < 0.25):
            return {"op": "create", "name": f"{self.seed}.{self.number}"}
        if len(names) >= FILES_MAX:
            return {"op": "unlink", "name": name}
        op = rng.choice(kinds)
        if op == "write":
            count = rng.choice((rng.randint(1, 300), rng.randint(1, 5000), rng.randint(1, WRITE_BYTES_MAX)))
            at = rng.randint(0, min(self.sizes[name], 150_000))
            return {"op": op, "name": name, "at": at, "count": count, "seed": f"{self.seed}/{self.number}"}
        if op == "truncate":
            return {"op": op, "name": name, "size": rng.randint(0, self.sizes[name] + 1000)}
        if op == "rename":
            return {"op": op, "name": name, "to": rng.choice((*names, f"{self.seed}.{self.number}"))}
        return {"op": op, "name": name}

    def _do(self, note: Note) -> None:
        path, sizes, name = self.folder / note["name"], self.sizes, note["name"]
        match note["op"]:
            case "create":
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                sizes[name] = 0
            case "write":
                with path.open("r+b", buffering=0) as file:
                    written = os.pwrite(file.fileno(), content_of(note), note["at"])
                if written < note["count"]:
                    raise OSError(errno.EIO, "the mount went in the middle of it")
                sizes[name] = max(sizes[name], note["at"] + written)
            case "truncate":
                os.truncate(path, note["size"])
                sizes[name] = note["size"]
            case "rename":
                os.rename(path, self.folder / note["to"])
                sizes[note["to"]] = sizes.pop(name)
            case "unlink":
                os.unlink(path)
                del sizes[name]
            case "fsync":
                with path.open("r+b", buffering=0) as file:
                    os.fsync(file.fileno())


def main(mountpoint: str, ledgers: str, seed: str) -> None:
    threads = []
    for number in range(WRITERS):
        writer = Writer(Path(mountpoint) / f"w{number}", Path(ledgers) / f"w{number}", f"{seed}-{number}")
        threads.append(threading.Thread(target=writer.work))
        threads[-1].start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
