"""Bearer tokens of the file API: who holds one may do what it says, where it says, until it ends.

The ledger keeps a hash of each secret; the secret itself is told once. A token acts for a user (an access key), so it
can never do more than that user may.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

from qss.errors import Refused
from qss.host import Clock
from qss.s3 import operations as op
from qss.s3.errors import Code, S3Error
from qss.trove.ledger import Ledger

KIND: Final = "token"
TOKENS_MAX: Final = 10_000
RIGHTS: Final = ("read", "write", "delete")
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 24
_TOKEN: Final = re.compile(r"tft_([0-9a-f]{16})_([0-9a-f]{48})")
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FileToken:
    """What a bearer may do."""

    id: str
    name: str
    may: frozenset[str] = frozenset(RIGHTS)
    bucket: str | None = None  # None: all
    prefix: str = ""
    expires_s: int | None = None
    user: str | None = None  # access key it acts for; None: the node's own
    created_s: int = 0

    def check(self, operation: op.Operation) -> None:
        """Raise S3Error ACCESS_DENIED unless the token allows this. What is not named here is never allowed."""
        match operation:
            case op.GetObject():
                allowed = "read" in self.may and self._covers(operation.bucket, operation.key)
            case op.PutObject():
                allowed = "write" in self.may and self._covers(operation.request.bucket, operation.request.key)
            case op.DeleteObject():
                allowed = "delete" in self.may and self._covers(operation.bucket, operation.request.key)
            case op.ListObjects():
                allowed = "read" in self.may and self._covers(operation.query.bucket, operation.query.prefix)
            case op.ListBuckets():
                allowed = "read" in self.may and self.bucket is None
            case _:
                allowed = False
        if not allowed:
            raise S3Error(Code.ACCESS_DENIED, "This token does not allow that.")

    def _covers(self, bucket: str, key: str) -> bool:
        return self.bucket in (None, bucket) and key.startswith(self.prefix)


class Tokens:
    """All tokens of a node, in memory; changes are durable when the call returns."""

    def __init__(self, ledger: Ledger, clock: Clock, token: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._token = token
        self._tokens: dict[str, tuple[bytes, FileToken]] = {}
        for name, value in ledger.load(KIND).items():
            self._tokens[name] = _token(name, value)

    def all(self) -> list[FileToken]:
        """Oldest first."""
        return sorted((token for _, token in self._tokens.values()), key=lambda each: (each.created_s, each.id))

    async def make(
        self,
        name: str,
        may: frozenset[str],
        *,
        bucket: str | None = None,
        prefix: str = "",
        lasts_s: int | None = None,
        user: str | None = None,
    ) -> tuple[FileToken, str]:
        """A token and its text, which is told this once. Raises Refused when there are too many."""
        if len(self._tokens) >= TOKENS_MAX:
            raise Refused(f"there are {TOKENS_MAX} tokens; remove some first")
        now_s = self._clock.now_ns() // _NS
        ends = None if lasts_s is None else now_s + lasts_s
        made = FileToken(self._token(_ID_BYTES).hex(), name, may, bucket, prefix, ends, user, now_s)
        secret = self._token(_SECRET_BYTES).hex()
        digest = _digest(secret)
        await self._ledger.put(KIND, made.id, _value(made, digest))
        self._tokens[made.id] = digest, made
        return made, f"tft_{made.id}_{secret}"

    def find(self, text: str) -> FileToken | None:
        """The token of this text, if it holds now."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        digest, token = self._tokens.get(match[1], (bytes(32), None))
        genuine = hmac.compare_digest(_digest(match[2]), digest)
        if token is None or not genuine:
            return None
        if token.expires_s is not None and self._clock.now_ns() // _NS >= token.expires_s:
            return None
        return token

    async def remove(self, name: str) -> bool:
        """From now on it opens nothing. False: there was none."""
        known = self._tokens.pop(name, None) is not None
        await self._ledger.remove(KIND, name)
        return known


def _digest(secret: str) -> bytes:
    """Of 192 random bits: a fast hash is enough."""
    return blake3(b"trove file token" + secret.encode()).digest()


def _value(token: FileToken, digest: bytes) -> dict[str, Any]:
    return {
        "digest": digest.hex(),
        "name": token.name,
        "may": sorted(token.may),
        "bucket": token.bucket,
        "prefix": token.prefix,
        "expires_s": token.expires_s,
        "user": token.user,
        "created_s": token.created_s,
    }


def _token(name: str, value: dict[str, Any]) -> tuple[bytes, FileToken]:
    try:
        fields = {each: value[each] for each in ("bucket", "prefix", "expires_s", "user", "created_s")}
        return bytes.fromhex(value["digest"]), FileToken(name, value["name"], frozenset(value["may"]), **fields)
    except (KeyError, TypeError, ValueError):
        raise Refused(f"the ledger is damaged at token {name}; put it back from a backup or remove it") from None
