"""The systems that are measured side by side: native, QSS in its variants, and the peers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks import peers
from benchmarks.processes import NotMeasured, wait_idle
from benchmarks.rig import Demo, Rig

_OURS = "fdatasync of both logs: durable"
_KERNEL_DELAYS = f"{_OURS}; without fsync up to 30 s are only in the kernel's memory"


class System(Protocol):
    """A directory to work in, and the processes that serve it."""

    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def fsync(self) -> str: ...
    @property
    def place(self) -> Path: ...
    def parts(self) -> dict[str, list[int]]: ...
    def settle(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Native:
    """A plain directory of the disk that all the others store on."""

    place: Path
    key: str = "native"
    name: str = "native"
    fsync: str = "durable"

    def parts(self) -> dict[str, list[int]]:
        return {}

    def settle(self) -> None:
        """Nothing runs on."""


@dataclass(frozen=True, slots=True)
class Qss:
    """A demo of scripts/run. `idle`: its offload process and its nodes are held by SIGSTOP."""

    demo: Demo
    key: str = "qss"
    name: str = "QSS"
    fsync: str = _OURS
    idle: bool = False

    @property
    def place(self) -> Path:
        return self.demo.mnt

    def parts(self) -> dict[str, list[int]]:
        found = {"mount": [self.demo.pid("mount")], "offload": self.demo.pids("offload")}
        return {"mount": found["mount"]} if self.idle else found | {"nodes": self.demo.pids("trove")}

    def settle(self) -> None:
        """Until all is safe at the nodes: what offload would do later would be taken from the next system's time."""
        if not self.idle:
            self.demo.qssctl("sync")
        wait_idle(lambda: [pid for part in self.parts().values() for pid in part])


@dataclass(slots=True)
class Lineup:
    """What runs, native first, and what does not, with the reason."""

    systems: list[System]
    versions: dict[str, str] = field(default_factory=dict)  # of the peers
    missing: dict[str, str] = field(default_factory=dict)  # name: reason

    def drop(self, system: System, reason: str) -> None:
        """It failed under work: it is not measured from here on."""
        self.systems.remove(system)
        self.missing[system.name] = reason


VARIANTS = ("qss-alone", "qss-writeback")
KEYS = ("native", "qss", *VARIANTS, *(peer.key for peer in peers.PEERS))


@contextlib.contextmanager
def lineup(rig: Rig, wanted: Sequence[str], variants: Sequence[str] = ()) -> Iterator[Lineup]:
    """Start what is wanted (keys; native is always there); stop it all at the end, whatever happens."""
    with contextlib.ExitStack() as stack:
        there = Lineup([Native(rig.native)])
        if "qss" in wanted:
            there.systems.append(Qss(rig.demo))
        for key in variants:
            if key in wanted:
                there.systems.append(stack.enter_context(_variant(rig, key)))
        for kind in peers.PEERS:
            if kind.key not in wanted:
                continue
            peer = kind(rig.root / kind.key)
            stack.callback(peer.stop)
            try:
                peer.prepare()
            except (NotMeasured, OSError) as error:
                there.missing[kind.name] = str(error)
                peer.stop()
            else:
                there.systems.append(peer)
                there.versions[kind.name] = peer.version()
        yield there


@contextlib.contextmanager
def _variant(rig: Rig, key: str) -> Iterator[Qss]:
    if key == "qss-writeback":
        with Demo(rig.root / key, k=4, m=2) as demo:
            demo.reconfigure("mount", "writeback_cache = true")
            yield Qss(demo, key, "QSS, kernel writeback cache", _KERNEL_DELAYS)
        return
    with Demo(rig.root / key, k=1, m=0) as demo, _held(demo):
        yield Qss(demo, key, "QSS, offload held", idle=True)


@contextlib.contextmanager
def _held(demo: Demo) -> Iterator[None]:
    pids = demo.pids("offload", "trove")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
