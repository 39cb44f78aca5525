"""The other half of qss.s3.chunked, which only clients of tests need: frames of aws-chunked bodies."""

from __future__ import annotations

import hashlib

from qss.s3.sigv4 import ChunkSigning


def encode_chunk(data: bytes, signing: ChunkSigning | None, previous: str) -> tuple[bytes, str]:
    """One frame and its signature, the `previous` of the next. Empty data makes the last chunk (without trailers)."""
    if signing is None:
        return b"%x\r\n%b%b" % (len(data), data, b"\r\n" if data else b""), ""
    signature = signing.chunk(previous, hashlib.sha256(data).hexdigest())
    head = b"%x;chunk-signature=%b\r\n" % (len(data), signature.encode())
    return head + data + (b"\r\n" if data else b""), signature
