"""Where a file system is written from: this machine and this state directory, in a form others can tell apart."""

from __future__ import annotations

import socket
from pathlib import Path

from blake3 import blake3

from qss.config import Settings
from qss.host import Host
from qss.offload.history import Known
from qss.offload.hold import BEAT_S, Hold

_MACHINE_ID = Path("/etc/machine-id")
_LIFE_BYTES = 8


def name_of_seat(settings: Settings) -> str:
    """For people, and in roots: roots of two copies of a state directory are never the same."""
    return f"{socket.gethostname()}:{settings.state.resolve()}"


def _place(state: Path, host: Host) -> str:
    """Changes with a reboot, too: then a hold that was not given up is waited for, before anything is uploaded."""
    try:
        facts = state.stat()
        directory = f"{facts.st_dev}\0{facts.st_ino}"
    except OSError:
        directory = ""
    return blake3(f"qss place v1\0{host.clock.boot_id()}\0{directory}".encode()).hexdigest()[:32]


def hold_of(settings: Settings, known: Known, host: Host) -> Hold:
    """As this machine would hold the file system. A copy of the state directory elsewhere gives another seat."""
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        machine = ""
    name, state = socket.gethostname(), str(settings.state.resolve())
    seat = blake3(f"qss seat v1\0{machine}\0{name}\0{state}".encode(errors="surrogateescape")).hexdigest()[:32]
    return Hold(
        seat=seat,
        epoch=known.next_epoch,
        writer=known.writer.hex(),
        host=name,
        state=state,
        beats=host.clock.now_ns(),  # counts on from run to run without being kept
        beat_ns=host.clock.now_ns(),
        every_s=BEAT_S,
        life=host.entropy.token(_LIFE_BYTES).hex(),
        generation=known.generation,
        place=_place(settings.state, host),
    )
