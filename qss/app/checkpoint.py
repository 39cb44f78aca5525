"""The process that writes a journal checkpoint, and how the mount process starts it.

    python -m qss.app.checkpoint INDEX INTO MAP_BYTES PART_BYTES

It reads one committed state of LMDB, writes new files and nothing else, and says on standard output what it wrote. It
is niced, and leaves when its standard input ends: whoever started it is gone then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import trio

from qss.app.exits import exit_of
from qss.cache.applied import Applied
from qss.cache.checkpoint_files import Written, write_parts
from qss.cache.checkpoints import Maker
from qss.cache.index import Committed
from qss.errors import Damaged, QssError
from qss.host import PosixDisk

NICENESS: Final = 10
LASTS_S_MAX: Final = 900.0
"""A read transaction of LMDB keeps pages from being used again: the file grows while it lasts."""
ANSWER_BYTES_MAX: Final = 65_536


def maker(map_bytes: int) -> Maker:
    """What SegmentCache is given in a mount process. `map_bytes`: as the index is opened with."""

    async def make(index: Path, into: Path, part_bytes: int) -> Written:
        command = [sys.executable, "-m", __name__, str(index), str(into), str(map_bytes), str(part_bytes)]
        with trio.move_on_after(LASTS_S_MAX) as scope:
            done = await _run(command)
        if scope.cancelled_caught:
            raise Damaged("a checkpoint took too long to write")
        if done.returncode:
            raise Damaged(f"a checkpoint could not be written: {done.stderr[-500:].decode(errors='replace').strip()}")
        return _written(done.stdout[:ANSWER_BYTES_MAX])

    return make


async def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Killed when cancelled. Its standard input is a pipe that stays open for as long as we live."""
    reading, writing = os.pipe()
    try:
        return await trio.run_process(command, stdin=reading, capture_stdout=True, capture_stderr=True, check=False)
    finally:
        os.close(reading)
        os.close(writing)


def _written(untrusted: bytes) -> Written:
    try:
        found = json.loads(untrusted)
        applied = Applied.unpack(bytes.fromhex(found["applied"]))
        return Written(applied, tuple(int(each) for each in found["lengths"]), int(found["rows"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged("the process that writes checkpoints does not say what it wrote") from error


def main(arguments: list[str]) -> int:
    """The exit code."""
    index, into, map_bytes, part_bytes = arguments
    os.nice(NICENESS)
    threading.Thread(target=_leave_with_input, daemon=True).start()
    try:
        with Committed.opened(Path(index), int(map_bytes)) as committed:
            written = write_parts(committed, PosixDisk(), Path(into), int(part_bytes))
    except (QssError, OSError) as error:
        print(error, file=sys.stderr)
        return exit_of(error) if isinstance(error, QssError) else 1
    print(json.dumps({"applied": written.applied.pack().hex(), "lengths": written.lengths, "rows": written.rows}))
    return 0


def _leave_with_input() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
