"""Users, their access keys and policies. Kept in the ledger, in memory while the node runs; read with every request.

Root is no user: it is the key pair of the node (qss.trove.credentials), may do everything, and cannot be listed,
disabled or deleted here. A secret key is told once, when it is made.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qss.errors import CorruptData, Refused
from qss.host import Clock, Entropy
from qss.s3.access.policy import Flavor, Policy, Principal, kept_policy, parse_policy
from qss.s3.errors import Code, S3Error
from qss.trove.credentials import Credentials
from qss.trove.ledger import Entry, Ledger

KIND: Final = "user"
USERS_MAX: Final = 10_000
KEYS_MAX: Final = 8  # of one user
POLICIES_MAX: Final = 10  # of one user
_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AccessKey:
    access_key: str
    secret_key: str = field(repr=False)
    created_ns: int
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class User:
    """`policies`: name → document as it was put."""

    name: str
    user_id: str
    created_ns: int
    keys: tuple[AccessKey, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def principal(self) -> Principal:
        return Principal(self.name, self.user_id)

    @property
    def arn(self) -> str:
        """As policies of buckets name it."""
        return self.principal.arn


ROOT: Final = Principal("")


class Users:
    """All users of a node. Changes go one after another and are durable when they return."""

    def __init__(self, root: Credentials, ledger: Ledger, clock: Clock, entropy: Entropy) -> None:
        self._root = root
        self._ledger = ledger
        self._clock = clock
        self._entropy = entropy
        self._changing = asyncio.Lock()
        self._users: dict[str, User] = {}
        self._keys: dict[str, tuple[AccessKey, Principal]] = {}
        self._policies: dict[str, tuple[Policy, ...]] = {}
        for name, entry in ledger.load(KIND).items():
            self._remember(_user(name, entry))

    # -- what requests ask --------------------------------------------------------------------------------------------

    def secret_of(self, access_key: str) -> str | None:
        """For the verifier. None: there is no such key, or it is disabled."""
        if access_key == self._root.access_key:
            return self._root.secret_key
        found = self._keys.get(access_key)
        return None if found is None else found[0].secret_key

    def principal_of(self, access_key: str) -> Principal | None:
        if access_key == self._root.access_key:
            return ROOT
        found = self._keys.get(access_key)
        return None if found is None else found[1]

    def policies_of(self, principal: Principal) -> Sequence[Policy]:
        return self._policies.get(principal.name, ())

    # -- what the admin API asks --------------------------------------------------------------------------------------

    def all(self) -> Sequence[User]:
        return [self._users[name] for name in sorted(self._users)]

    def get(self, name: str) -> User:
        """Raises S3Error NO_SUCH_ENTITY."""
        found = self._users.get(name)
        if found is None:
            raise S3Error(Code.NO_SUCH_ENTITY, f"There is no user {name[:64]}.")
        return found

    async def create(self, name: str) -> User:
        async with self._changing:
            _check_name(name)
            if name in self._users:
                raise S3Error(Code.ENTITY_EXISTS, f"There is a user {name} already.")
            if len(self._users) >= USERS_MAX:
                raise S3Error(Code.LIMIT_EXCEEDED, f"A node has up to {USERS_MAX} users.")
            user_id = "AIDA" + self._entropy.token(8).hex().upper()
            return await self._save(User(name, user_id, self._clock.now_ns()))

    async def delete(self, name: str) -> None:
        """With its keys and policies: requests signed with them are refused from now on."""
        async with self._changing:
            self.get(name)
            await self._ledger.remove(KIND, name)
            self._forget(name)

    async def create_key(self, name: str) -> AccessKey:
        """The only time that its secret is given out."""
        async with self._changing:
            user = self.get(name)
            if len(user.keys) >= KEYS_MAX:
                raise S3Error(Code.LIMIT_EXCEEDED, f"A user has up to {KEYS_MAX} access keys.")
            made = AccessKey(
                "AKIA" + self._entropy.token(8).hex().upper(), self._entropy.token(24).hex(), self._clock.now_ns()
            )
            await self._save(replace(user, keys=(*user.keys, made)))
            return made

    async def enable_key(self, name: str, access_key: str, *, enabled: bool) -> None:
        async with self._changing:
            user, old = self._key(name, access_key)
            new = replace(old, enabled=enabled)
            await self._save(replace(user, keys=tuple(new if each is old else each for each in user.keys)))

    async def delete_key(self, name: str, access_key: str) -> None:
        async with self._changing:
            user, old = self._key(name, access_key)
            await self._save(replace(user, keys=tuple(each for each in user.keys if each is not old)))

    async def put_policy(self, name: str, policy: str, document: str) -> None:
        """Add or replace. Raises S3Error MALFORMED_POLICY."""
        async with self._changing:
            _check_name(policy)
            user = self.get(name)
            try:
                parse_policy(document, Flavor.USER)
            except CorruptData as error:
                raise S3Error(Code.MALFORMED_POLICY, str(error)) from None
            if policy not in user.policies and len(user.policies) >= POLICIES_MAX:
                raise S3Error(Code.LIMIT_EXCEEDED, f"A user has up to {POLICIES_MAX} policies.")
            await self._save(replace(user, policies={**user.policies, policy: document}))

    async def delete_policy(self, name: str, policy: str) -> None:
        async with self._changing:
            user = self.get(name)
            if policy not in user.policies:
                raise S3Error(Code.NO_SUCH_ENTITY, f"{name} has no policy {policy[:64]}.")
            kept = {each: text for each, text in user.policies.items() if each != policy}
            await self._save(replace(user, policies=kept))

    def _key(self, name: str, access_key: str) -> tuple[User, AccessKey]:
        user = self.get(name)
        for each in user.keys:
            if each.access_key == access_key:
                return user, each
        raise S3Error(Code.NO_SUCH_ENTITY, f"{name} has no access key {access_key[:64]}.")

    # -- memory and ledger say the same -------------------------------------------------------------------------------

    async def _save(self, user: User) -> User:
        """The ledger first: what was answered survives, what failed changed nothing."""
        await self._ledger.put(KIND, user.name, _entry(user))
        self._remember(user)
        return user

    def _remember(self, user: User) -> None:
        self._forget(user.name)
        self._users[user.name] = user
        for key in user.keys:
            if key.enabled:
                self._keys[key.access_key] = key, user.principal
        self._policies[user.name] = tuple(kept_policy(text, Flavor.USER) for text in user.policies.values())

    def _forget(self, name: str) -> None:
        old = self._users.pop(name, None)
        self._policies.pop(name, None)
        for key in old.keys if old is not None else ():
            self._keys.pop(key.access_key, None)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise S3Error(Code.INVALID_ARGUMENT, "A name has 1 to 64 letters, digits and any of _+=,.@-")


def _entry(user: User) -> Entry:
    keys = [
        {"key": key.access_key, "secret": key.secret_key, "created": key.created_ns, "enabled": key.enabled}
        for key in user.keys
    ]
    return {"id": user.user_id, "created": user.created_ns, "keys": keys, "policies": dict(user.policies)}


def _user(name: str, entry: dict[str, Any]) -> User:
    try:
        keys = tuple(
            AccessKey(str(key["key"]), str(key["secret"]), int(key["created"]), bool(key["enabled"]))
            for key in entry["keys"]
        )
        policies = {str(each): str(text) for each, text in entry["policies"].items()}
        for text in policies.values():
            kept_policy(text, Flavor.USER)
        return User(name, str(entry["id"]), int(entry["created"]), keys, policies)
    except (KeyError, TypeError, ValueError, AttributeError, CorruptData):
        raise Refused(f"user {name} in the ledger is damaged; put the ledger back from a backup") from None
