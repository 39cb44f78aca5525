"""Shares: links to one object, for a limited time and number of uses. Kept in the ledger, opened by a token.

A share names an object by bucket and key, and gives what is there when it is used. Format: docs/formats/share.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qss.errors import CorruptData, Refused
from qss.formats.share import ID_BYTES, KEY_BYTES, Grant, decode_share, encode_share, is_genuine
from qss.host import Clock, Entropy
from qss.s3.errors import Code, S3Error
from qss.trove.durable import check_private, replace_durably
from qss.trove.ledger import Ledger

KIND: Final = "share"
KEY_FILE: Final = "share.key"
PATH: Final = "/s/"
"""Where a share is reached: behind it comes its token, which opens what it names."""
SHARES_MAX: Final = 10_000
KEPT_AFTER_END_S: Final = 86_400
"""How long a share is listed after it has expired."""
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Share:
    id: str  # hex
    grant: Grant
    created_s: int
    uses: int = 0
    note: str = ""
    user: str | None = None  # access key it acts for; None: the node's own

    def is_used_up(self) -> bool:
        return 0 < self.grant.uses_max <= self.uses


class Shares:
    """All shares of a node, in memory; changes are durable when the call returns."""

    def __init__(self, ledger: Ledger, key: bytes, clock: Clock, token: Callable[[int], bytes]) -> None:
        self._ledger = ledger
        self._key = key
        self._clock = clock
        self._token = token
        self._shares = {name: _share(name, value) for name, value in ledger.load(KIND).items()}
        self._counted: set[str] = set()  # used since they were written last

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS

    def all(self) -> list[Share]:
        """Oldest first."""
        return sorted(self._shares.values(), key=lambda share: (share.created_s, share.id))

    def get(self, name: str) -> Share | None:
        return self._shares.get(name)

    async def make(
        self, bucket: str, key: str, lasts_s: int, uses_max: int, note: str, user: str | None = None
    ) -> tuple[Share, str]:
        """A share and its token, which is told this once. Raises Refused when there are too many."""
        await self._forget_old()
        if len(self._shares) >= SHARES_MAX:
            raise Refused(f"there are {SHARES_MAX} shares; revoke some first")
        name, now_s = self._token(ID_BYTES), self._now_s()
        share = Share(name.hex(), Grant(bucket, key, now_s + lasts_s, uses_max), now_s, note=note, user=user)
        await self._ledger.put(KIND, share.id, _value(share))
        self._shares[share.id] = share
        return share, encode_share(self._key, name, share.grant)

    def open(self, token: str) -> Share:
        """The share that a token opens now. Raises S3Error: NOT_FOUND for what never was one or is revoked, EXPIRED."""
        try:
            claim = decode_share(token)
        except CorruptData:
            raise S3Error(Code.NOT_FOUND, "There is no such share.") from None
        share = self._shares.get(claim.share.hex())
        if share is None or not is_genuine(self._key, claim, share.grant):
            raise S3Error(Code.NOT_FOUND, "There is no such share.")
        if self._now_s() >= share.grant.expires_s or share.is_used_up():
            raise S3Error(Code.EXPIRED, "This share has expired or is used up.")
        return share

    async def use(self, name: str) -> None:
        """Count one use. To be awaited before anything is given away; raises as `open` when it is too late."""
        share = self._shares.get(name)
        if share is None or share.is_used_up():
            raise S3Error(Code.EXPIRED, "This share has expired or is used up.")
        share = self._shares[name] = replace(share, uses=share.uses + 1)
        if share.grant.uses_max:
            await self._ledger.put(KIND, name, _value(share))
        else:
            self._counted.add(name)

    async def revoke(self, name: str) -> bool:
        """From now on nothing is given. False: there was none."""
        self._counted.discard(name)
        known = self._shares.pop(name, None) is not None
        await self._ledger.remove(KIND, name)
        return known

    async def flush(self) -> None:
        """Write the counts of unlimited shares."""
        counted, self._counted = self._counted, set()
        for name in counted:
            share = self._shares.get(name)
            if share is not None:
                await self._ledger.put(KIND, name, _value(share))

    async def _forget_old(self) -> None:
        before = self._now_s() - KEPT_AFTER_END_S
        for name in [name for name, share in self._shares.items() if share.grant.expires_s < before]:
            await self.revoke(name)


def share_key(directory: Path, entropy: Entropy) -> bytes:
    """The node's key for share tokens; made when there is none. Raises Refused for a damaged one."""
    path = directory / KEY_FILE
    if not path.exists():
        replace_durably(path, entropy.token(KEY_BYTES).hex().encode() + b"\n")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (ValueError, UnicodeDecodeError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Refused(f"{path} is damaged; put it back, or remove it, which ends all shares")
    check_private(path)
    return key


def _value(share: Share) -> dict[str, Any]:
    grant = share.grant
    return {
        "bucket": grant.bucket,
        "key": grant.key,
        "expires_s": grant.expires_s,
        "uses_max": grant.uses_max,
        "created_s": share.created_s,
        "uses": share.uses,
        "note": share.note,
        "user": share.user,
    }


def _share(name: str, value: dict[str, Any]) -> Share:
    try:
        grant = Grant(str(value["bucket"]), str(value["key"]), int(value["expires_s"]), int(value["uses_max"]))
        return Share(name, grant, int(value["created_s"]), int(value["uses"]), str(value["note"]), value.get("user"))
    except (KeyError, TypeError, ValueError):
        raise Refused(f"the ledger is damaged at share {name}; put it back from a backup or remove it") from None
