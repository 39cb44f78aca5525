"""Share tokens: what a person holds who may fetch one object for a while. docs/formats/share.md.

The token names a share by a random id and carries a MAC over everything the share grants, under a key that only the
node has: none can be made up, and a share whose row was changed behind the node's back is no longer opened by it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData

VERSION: Final = 1
ID_BYTES: Final = 16
KEY_BYTES: Final = 32
MAC_BYTES: Final = 32
TOKEN_CHARS: Final = 76
_BODY: Final = struct.Struct(">B16sQ")
_CONTEXT: Final = b"trove share token"
_USES: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct(">I")

assert (_BODY.size + MAC_BYTES) * 4 == TOKEN_CHARS * 3  # no padding


@dataclass(frozen=True, slots=True)
class Grant:
    """What a share gives away."""

    bucket: str
    key: str
    expires_s: int  # seconds since 1970
    uses_max: int  # 0: any number


@dataclass(frozen=True, slots=True)
class Claim:
    """A token taken apart; nothing in it is believed before `is_genuine`."""

    share: bytes
    expires_s: int
    mac: bytes


def encode_share(key: bytes, share: bytes, grant: Grant) -> str:
    """The token, 76 characters that need no escaping anywhere in a URL."""
    body = _BODY.pack(VERSION, share, grant.expires_s)
    return base64.urlsafe_b64encode(body + _mac(key, body, grant)).decode()


def decode_share(untrusted: str) -> Claim:
    """Raises CorruptData for what no node can have made."""
    if len(untrusted) != TOKEN_CHARS or not untrusted.isascii():
        raise CorruptData("this is no share token")
    try:
        data = base64.b64decode(untrusted, altchars=b"-_", validate=True)
        version, share, expires_s = _BODY.unpack_from(data)
    except (binascii.Error, struct.error):
        raise CorruptData("this is no share token") from None
    if version != VERSION or len(data) != _BODY.size + MAC_BYTES:
        raise CorruptData("this is no share token")
    return Claim(share, expires_s, data[_BODY.size :])


def is_genuine(key: bytes, claim: Claim, grant: Grant) -> bool:
    """Was this token made with this key for exactly this grant? Takes as long for a wrong one as for a right one."""
    body = _BODY.pack(VERSION, claim.share, claim.expires_s)
    return hmac.compare_digest(_mac(key, body, grant), claim.mac) and claim.expires_s == grant.expires_s


def _mac(key: bytes, body: bytes, grant: Grant) -> bytes:
    assert len(key) == KEY_BYTES
    bucket, name = grant.bucket.encode(), grant.key.encode()
    mac = blake3(_CONTEXT, key=key)
    for piece in (body, _USES.pack(grant.uses_max), bucket, name):
        mac.update(_LENGTH.pack(len(piece)))
        mac.update(piece)
    return mac.digest(MAC_BYTES)
