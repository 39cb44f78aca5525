"""Manifests at rest: encrypted, here in a directory (a cache of what every shard object carries) and in memory.

Nothing here needs syncing: a manifest that is lost is read back from any location.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from qss.errors import CorruptData
from qss.formats.manifest import Manifest
from qss.host import Entropy
from qss.ids import SegmentId, segment_text
from qss.offload.files import replace_file
from qss.offload.keys import FsKeys
from qss.offload.seal import NONCE_BYTES, open_box, seal_box

_DOMAIN: Final = b"qss manifest v1\0"
_NUMBER = struct.Struct("<Q")
CACHED_MAX: Final = 512
"""Manifests kept decoded in memory, a few KiB each."""


class Manifests:
    def __init__(self, directory: Path, keys: FsKeys, entropy: Entropy) -> None:
        self._directory = directory
        self._keys = keys
        self._entropy = entropy
        self._cached: OrderedDict[SegmentId, Manifest] = OrderedDict()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, segment: SegmentId) -> Manifest | None:
        """What is known here; None if nothing is, or what is there does not verify (the locations have it)."""
        if segment in self._cached:
            self._cached.move_to_end(segment)
            return self._cached[segment]
        try:
            manifest = self.open(segment, (self._directory / segment_text(segment)).read_bytes())
        except (FileNotFoundError, CorruptData):
            return None
        self._remember(manifest)
        return manifest

    def save(self, manifest: Manifest) -> bytes:
        """Keep it here; returns its encrypted form."""
        box = self.seal(manifest)
        replace_file(self._directory / segment_text(manifest.segment.id), box)
        self._remember(manifest)
        return box

    def forget(self, segment: SegmentId) -> None:
        self._cached.pop(segment, None)
        with suppress(FileNotFoundError):
            (self._directory / segment_text(segment)).unlink()

    def seal(self, manifest: Manifest) -> bytes:
        nonce = self._entropy.token(NONCE_BYTES)
        return seal_box(self._keys.manifest, self._domain(manifest.segment.id), manifest.pack(), nonce)

    def open(self, segment: SegmentId, box: bytes) -> Manifest:
        """Raises CorruptData when it is not the manifest of this segment of this file system."""
        manifest = Manifest.unpack(open_box(self._keys.manifest, self._domain(segment), box))
        if manifest.segment.id != segment or manifest.fs_id != self._keys.fs_id:
            raise CorruptData("a manifest is of another segment")
        return manifest

    def _domain(self, segment: SegmentId) -> bytes:
        return _DOMAIN + self._keys.fs_id + _NUMBER.pack(segment)

    def _remember(self, manifest: Manifest) -> None:
        self._cached[manifest.segment.id] = manifest
        self._cached.move_to_end(manifest.segment.id)
        while len(self._cached) > CACHED_MAX:
            self._cached.popitem(last=False)
