"""Reading sealed objects: ranges of plain bytes over a reader of the stored ones, frame by frame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from qss.formats.sse import FRAME_BYTES, PLAIN_BYTES, TAG_BYTES, frame_count, plain_len
from qss.s3.backend import READ_WHOLE_BYTES_MAX, Chunk, StoredObject
from qss.trove.engine import INLINE_BYTES_MAX, Engine
from qss.trove.meta import load, salt_of
from qss.trove.reader import PIECE_BYTES, TroveReader
from qss.trove.sealing import BodyCipher, ObjectKey

_WHOLE_FRAMES: Final = -(-READ_WHOLE_BYTES_MAX // PLAIN_BYTES) + 1
_PIECE_FRAMES: Final = PIECE_BYTES // FRAME_BYTES

assert _PIECE_FRAMES > 0


class PlainReader:
    """An ObjectReader of the plain bytes of a sealed object. Each byte is verified twice on its way: by the hash of its
    block, which the node keeps, and by the tag of its frame, which only the object's key makes."""

    def __init__(self, stored: TroveReader, key: ObjectKey, engine: Engine) -> None:
        self._stored = stored
        self._key = key
        self._engine = engine
        self._cipher: tuple[int, BodyCipher] | None = None

    @property
    def info(self) -> StoredObject:
        return self._stored.info

    async def read(self, start: int, stop: int) -> Chunk:
        pieces = [piece async for piece in self._pieces(start, stop, _WHOLE_FRAMES)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[Chunk]:
        async for piece in self._pieces(start, stop, _PIECE_FRAMES):
            yield piece

    async def aclose(self) -> None:
        await self._stored.aclose()

    async def _pieces(self, start: int, stop: int, frames: int) -> AsyncIterator[Chunk]:
        at = 0  # of the segment, in plain bytes
        for index, segment in enumerate(self._stored.segments):
            size = plain_len(segment.size)
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                first, end = low // PLAIN_BYTES, -(-high // PLAIN_BYTES)
                for frame in range(first, end, frames):
                    plain = await self._open(index, frame, min(frame + frames, end))
                    begins = frame * PLAIN_BYTES
                    yield plain[max(low - begins, 0) : high - begins]
            at += size

    async def _open(self, index: int, frame: int, end: int) -> memoryview:
        """Frames [frame, end) of a segment, in plain. Raises CorruptData."""
        segment = self._stored.segments[index]
        stop = min(end * FRAME_BYTES, segment.size)
        sealed = await self._stored.read(segment.start + frame * FRAME_BYTES, segment.start + stop)
        cipher, last = self._cipher_of(index), frame_count(plain_len(segment.size)) - 1
        if len(sealed) <= INLINE_BYTES_MAX:
            return _opened(cipher, sealed, frame, last)
        return await self._engine.in_pool(_opened, cipher, sealed, frame, last)

    def _cipher_of(self, index: int) -> BodyCipher:
        if self._cipher is None or self._cipher[0] != index:
            number = self._stored.segments[index].number
            salt = salt_of(load(self._stored.record(index).header.meta)) if number else b""
            self._cipher = index, self._key.body(salt, number)
        return self._cipher[1]


def _opened(cipher: BodyCipher, sealed: Chunk, frame: int, last: int) -> memoryview:
    """All frames of `sealed`, the first of which is number `frame`. Raises CorruptData."""
    view, at = memoryview(sealed), 0
    plain = memoryview(bytearray(plain_len(len(view))))
    for number in range(frame, frame + frame_count(len(plain))):
        piece = view[(number - frame) * FRAME_BYTES :][:FRAME_BYTES]
        end = at + len(piece) - TAG_BYTES
        cipher.open_into(plain[at:end], piece, number, last=number == last)
        at = end
    return plain
