"""What this machine remembers of the roots it writes: `root.json`, synced whenever it changes (docs/formats/root.md).

A root is written down before it is claimed anywhere. So after a crash its own claim is told from another machine's,
also from that of a copy of this state directory, and one generation of one machine is never two roots.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from qss.errors import CorruptData, Refused
from qss.formats.root import Root
from qss.host import Entropy
from qss.ids import LocationId
from qss.offload.files import replace_file
from qss.offload.history import NO_DIGEST, Known

WRITER_BYTES: Final = 16


class RootMemory:
    """Owner of `root.json`."""

    def __init__(self, path: Path, fs_id: bytes, entropy: Entropy) -> None:
        """Raises CorruptData when there is a file that cannot be read, Refused when it is of another file system."""
        self._path = path
        self._fs_id = fs_id
        self.claim: Root | None = None  # perhaps at some locations, not known to be at a majority
        self.overdue: dict[LocationId, set[int]] = {}  # generations to delete there; kept with the next change
        self.numbers_from = 0  # segments written since the last recovery have this number or a higher one
        self.known = self._load(entropy)

    def intend(self, root: Root) -> None:
        """It is about to be claimed."""
        self.claim = root
        self.keep(replace(self.known, claim=root.digest()))

    def committed(self, root: Root, next_epoch: int) -> None:
        """It is the newest; nothing is claimed."""
        self.claim = None
        self.keep(
            replace(
                self.known, generation=root.generation, epoch=root.epoch, digest=root.digest(), next_epoch=next_epoch,
                claim=NO_DIGEST,
            )
        )  # fmt: skip

    def withdraw(self) -> None:
        """What was claimed is given up: another root is there, or this machine goes on elsewhere."""
        self.claim = None
        self.known = replace(self.known, claim=NO_DIGEST)

    def keep(self, known: Known) -> None:
        """From now on, also after a power cut."""
        self.known = known
        fields = {
            "fs_id": self._fs_id.hex(),
            "generation": known.generation,
            "epoch": known.epoch,
            "digest": known.digest.hex(),
            "writer": known.writer.hex(),
            "next_epoch": known.next_epoch,
            "claim": self.claim.pack().hex() if self.claim is not None else "",
            "numbers_from": self.numbers_from,
            "overdue": {place: sorted(due) for place, due in self.overdue.items() if due},
        }
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, (json.dumps(fields) + "\n").encode(), sync=True)

    def _load(self, entropy: Entropy) -> Known:
        """A new writer id when there is no file."""
        try:
            text = self._path.read_text(encoding="ascii")
        except FileNotFoundError:
            return Known(0, 0, NO_DIGEST, entropy.token(WRITER_BYTES), 0)
        try:
            fields = json.loads(text)
            if fields["fs_id"] != self._fs_id.hex():
                raise Refused(f"{self._path} is of another file system: key and state directory do not belong together")
            claim = str(fields.get("claim", ""))
            self.claim = Root.unpack(bytes.fromhex(claim)) if claim else None
            self.numbers_from = int(fields.get("numbers_from", 0))
            overdue = fields.get("overdue", {}).items()
            self.overdue = {LocationId(place): {int(generation) for generation in due} for place, due in overdue}
            return Known(
                int(fields["generation"]), int(fields["epoch"]),
                bytes.fromhex(fields["digest"]), bytes.fromhex(fields["writer"]),
                int(fields["next_epoch"]),
                self.claim.digest() if self.claim is not None else NO_DIGEST,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptData(f"{self._path} cannot be read; it is safe to move it away") from error
