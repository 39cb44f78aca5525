"""The S3 service without a network: signed requests as values, answers as values."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from qss.errors import CorruptData
from qss.s3.access.gate import Gate
from qss.s3.access.policy import Flavor, Policy, Principal, parse_policy
from qss.s3.backend import Chunk
from qss.s3.exchange import Exchange
from qss.s3.message import RequestHead, Response
from qss.s3.server import S3Service, ServiceOptions
from qss.s3.sigv4 import Credentials, SigningKeys, Verifier, sign
from qss.s3.xml import Node
from qss.s3.xml import parse as parse_xml
from tests.harness.memory_backend import MemoryBackend
from tests.harness.trove_node import node

NOW_NS = 1_700_000_000_000_000_000
SECRET = "a secret of tests"


class FixedClock:
    def now_ns(self) -> int:
        return NOW_NS


@dataclass
class FakeUsers:
    """Access keys are names; "root" is root. `documents`: name → policies as JSON."""

    documents: dict[str, list[str]] = field(default_factory=dict)

    def principal_of(self, access_key: str) -> Principal | None:
        if access_key == "root":
            return Principal("")
        return Principal(access_key, f"AIDA{access_key}") if access_key in self.documents else None

    def policies_of(self, principal: Principal) -> Sequence[Policy]:
        return [parse_policy(text, Flavor.USER) for text in self.documents.get(principal.name, ())]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def xml(self) -> Node:
        return parse_xml(self.body)

    @property
    def code(self) -> str:
        """S3's error code, or "" where it is none."""
        try:
            root = self.xml
        except CorruptData:
            return ""
        return root.get("Code") if root.name == "Error" else ""


class Direct:
    """A service with users, over memory or another backend. `who`: an access key, or None for anonymous."""

    def __init__(self, backend: Any = None, options: ServiceOptions | None = None) -> None:
        self.backend = backend or MemoryBackend(lambda: NOW_NS)
        self.users = FakeUsers()
        self.gate = Gate(self.users, self.backend, self._tags_of, lambda: NOW_NS)
        self.service = S3Service(
            self.backend,
            Verifier(self._secret_of),
            FixedClock(),
            bytes,
            options=options or ServiceOptions(),
            authorize=self.gate,
        )
        self._keys = SigningKeys()

    def _secret_of(self, access_key: str) -> str | None:
        return SECRET if self.users.principal_of(access_key) is not None else None

    async def _tags_of(self, bucket: str, key: str, version_id: str | None) -> tuple[tuple[str, str], ...]:
        return (await self.backend.head(bucket, key, version_id)).attributes.tags

    def ask(
        self,
        who: str | None,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        client: str = "192.0.2.7",
        secure: bool = True,
    ) -> Answer:
        """One request, one answer, whole."""
        return self.send(self.signed(who, method, path, body, query, headers, client, secure), body)

    def signed(
        self,
        who: str | None,
        method: str,
        path: str,
        body: bytes = b"",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        client: str = "192.0.2.7",
        secure: bool = True,
    ) -> RequestHead:
        """The head of a request with this body."""
        fields = {"host": "trove.test", **(headers or {})}
        if body or method in ("PUT", "POST"):
            fields["content-length"] = str(len(body))
        head = RequestHead(method, path, urlencode(query or {}), fields, secure, client)
        if who is not None:
            fields["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
            added, _ = sign(head, Credentials(who, SECRET), "us-east-1", NOW_NS, self._keys)
            fields |= added
        return head

    def send(self, head: RequestHead, body: bytes = b"", exchange: Exchange | None = None) -> Answer:
        async def raw() -> AsyncIterator[Chunk]:
            yield body

        async def whole() -> Answer:
            response = await self.service.handle(head, raw(), exchange)
            return Answer(response.status, dict(response.headers), await _body(response))

        return asyncio.run(whole())

    def bucket(self, name: str, policy: str | None = None, *, blocked: bool = False) -> None:
        """A bucket of root's with a policy, put without asking whether it is public."""
        asyncio.run(self.backend.create_bucket(name, "us-east-1"))
        if not blocked:
            asyncio.run(self.backend.put_document(name, "public-access", b"deleted"))
        if policy is not None:
            asyncio.run(self.backend.put_document(name, "policy", policy.encode()))


async def _body(response: Response) -> bytes:
    data = bytes(response.body)
    if response.stream is not None:
        data += b"".join([bytes(chunk) async for chunk in response.stream])
    if response.close is not None:
        await response.close()
    return data


def on_a_node(folder: Path) -> Iterator[Direct]:
    """The service of a real node that has a bucket `bkt`; for a fixture: `yield from on_a_node(tmp_path)`."""
    opened = node(folder)
    found = Direct(opened.store)
    found.bucket("bkt")
    yield found
    asyncio.run(opened.aclose())
