"""How far an index has come: the mark in META that LMDB and every checkpoint carry."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from qss.errors import CorruptData
from qss.ids import SEGMENT_ID_NONE, SegmentId

_APPLIED: Final = struct.Struct("<QIIQIQ")


class Applied(NamedTuple):
    """Everything in the journal up to here is in it."""

    journal: SegmentId  # 0: nothing yet
    position: int  # end of the last frame applied
    frames: int  # up to there in that segment
    data_segment: SegmentId  # the data log reached to here then
    data_bytes: int
    next_segment: SegmentId

    def pack(self) -> bytes:
        return _APPLIED.pack(*self)

    @classmethod
    def unpack(cls, untrusted: bytes) -> Applied:
        """Raises CorruptData."""
        try:
            return cls(*_APPLIED.unpack(untrusted))
        except struct.error as error:
            raise CorruptData("the mark of the index has the wrong length") from error


NOTHING_APPLIED: Final = Applied(SEGMENT_ID_NONE, 0, 0, SEGMENT_ID_NONE, 0, SegmentId(1))
