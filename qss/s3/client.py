"""S3 over HTTP as an ObjectStore: one bucket, one prefix, one small pool of connections. On trio."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from qss.errors import AccessDenied, ConfigInvalid, CorruptData, ObjectMissing, Refused, Unreachable
from qss.limits import KIB
from qss.s3.answers import Answer, Peer, error_of, http_date_ns, iso_date_ns
from qss.s3.http1 import Http, HttpLimits, Origin, Reply
from qss.s3.message import RequestHead
from qss.s3.sigv4 import EMPTY_SHA256, Credentials, Payload, SigningKeys, canonical_query, sign, uri_encode
from qss.s3.store import Body, ObjectInfo
from qss.s3.xml import XML_BYTES_MAX, Node, document, leaf, parse

PIECE_BYTES: Final = 64 * KIB
"""How a body is read whose length we have not asked for."""
ERROR_BYTES_MAX: Final = 64 * KIB


class Clock(Protocol):
    """qss.host.Clock is one."""

    def now_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ClientOptions:
    connect_s_max: float = 5.0
    read_s_max: float = 30.0  # between two pieces of an answer
    connections_max: int = 16
    verify_tls: bool = True
    virtual_host: bool = False  # bucket in the host name instead of the path
    sign_payload: bool = False  # reads each body twice; for servers that refuse UNSIGNED-PAYLOAD
    ask_fast_etag: bool = True  # x-trove-etag: blake3; others than Trove ignore it
    user_agent: str = "qss"


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    key: str | None = None  # with the prefix; None = the bucket itself
    params: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None


class S3Client:
    """An ObjectStore in a bucket of any S3 server. See qss.s3.store for what each verb promises and raises."""

    def __init__(
        self,
        endpoint_url: str,
        bucket: str,
        *,
        access_key: str,
        secret_key: str,
        clock: Clock,
        region: str = "us-east-1",
        prefix: str = "",
        options: ClientOptions = ClientOptions(),
    ) -> None:
        """Raises ConfigInvalid for an endpoint that is not http(s)://host[:port]."""
        scheme, host = _endpoint(endpoint_url)
        self.bucket = bucket
        self.prefix = prefix
        self._credentials = Credentials(access_key, secret_key)
        self._clock = clock
        self._region = region
        self._options = options
        self._peer = Peer(f"{endpoint_url.rstrip('/')}/{bucket}", access_key)
        self._host = f"{bucket}.{host}" if options.virtual_host else host
        self._path = "/" if options.virtual_host else f"/{bucket}/"
        self._keys = SigningKeys()
        limits = HttpLimits(options.connect_s_max, options.read_s_max, options.connections_max)
        self._http = Http(_origin(scheme, self._host, options.verify_tls), limits)

    def __repr__(self) -> str:
        return f"S3Client({self._peer.location!r}, prefix={self.prefix!r})"

    async def aclose(self) -> None:
        """Close all connections."""
        self._http.close()

    async def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        try:
            await self._whole(_Request("HEAD"))
        except ObjectMissing:
            await self._create_bucket()

    async def _create_bucket(self) -> None:
        data = b""
        if self._region != "us-east-1":
            data = document("CreateBucketConfiguration", [leaf("LocationConstraint", self._region)])
        try:
            await self._whole(_Request("PUT", body=_body(data)))
        except AccessDenied:
            raise
        except Refused:  # somebody was faster: then it is there now
            await self._whole(_Request("HEAD"))

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        headers = {"content-type": "application/octet-stream"}
        if if_absent:
            headers["if-none-match"] = "*"
        if self._options.ask_fast_etag:
            headers["x-trove-etag"] = "blake3"
        await self._whole(_Request("PUT", self._name(key), headers=headers, body=body))

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None:
            buffer = bytearray(max(0, stop - start))
            await self.get_into(key, start, memoryview(buffer))
            return bytes(buffer)
        request = _Request("GET", self._name(key), headers={"range": f"bytes={start}-"} if start else {})
        async with self._send(request) as reply:
            if reply.status == 416 and reply.headers.get("content-range") == f"bytes */{start}":
                return b""
            await self._raise_for(reply, request)
            length = _expected_length(reply, start, None, self._name(key))
            return await self._read(reply, length)

    async def get_into(self, key: str, start: int, into: memoryview) -> None:
        if not into:
            await self._get_nothing(key, start)
            return
        stop = start + len(into)
        request = _Request("GET", self._name(key), headers={"range": f"bytes={start}-{stop - 1}"})
        async with self._send(request) as reply:
            await self._raise_for(reply, request)
            _expected_length(reply, start, stop, self._name(key))
            have = 0
            while have < len(into):
                count = await reply.read_into(into[have:])
                if not count:
                    raise CorruptData(f"{self._peer.location} broke off after {have} of {len(into)} bytes")
                have += count

    async def _get_nothing(self, key: str, start: int) -> None:
        if (await self.head(key)).size < start:
            raise CorruptData(f"{self._peer.location}/{self._name(key)} is shorter than {start} bytes")

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._whole(_Request("HEAD", self._name(key)))
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise CorruptData(f"{self._peer.location}/{self._name(key)}: the answer has no length")
        etag = answer.headers.get("etag", "").strip('"')
        return ObjectInfo(key, int(length), etag, http_date_ns(answer.headers.get("last-modified", "")))

    async def delete(self, key: str) -> None:
        try:
            await self._whole(_Request("DELETE", self._name(key)))
        except ObjectMissing:
            return

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        params = {"list-type": "2", "encoding-type": "url", "prefix": self.prefix + prefix}
        if after:
            params["start-after"] = self.prefix + after
        while True:
            answer = await self._whole(_Request("GET", params=list(params.items())))
            root = parse(answer.body)
            encoded = root.get("EncodingType") == "url"
            for node in root.all("Contents"):
                yield self._info(node, encoded)
            token = root.get("NextContinuationToken")
            if root.get("IsTruncated") != "true":
                return
            if not token or params.get("continuation-token") == token:
                raise CorruptData(f"{self._peer.location}: a truncated listing without a way on")
            params["continuation-token"] = token

    def _info(self, node: Node, encoded: bool) -> ObjectInfo:
        key, size = node.get("Key"), node.get("Size")
        key = unquote(key.replace("+", " ")) if encoded else key
        if not key.startswith(self.prefix) or not size.isdigit():
            raise CorruptData(f"{self._peer.location}: a listing with an entry that was not asked for")
        etag = node.get("ETag").strip('"')
        return ObjectInfo(key[len(self.prefix) :], int(size), etag, iso_date_ns(node.get("LastModified")))

    def _name(self, key: str) -> str:
        return self.prefix + key

    # -- requests
    async def _whole(self, request: _Request) -> Answer:
        """Send, check the status, take the (small) body."""
        async with self._send(request) as reply:
            await self._raise_for(reply, request)
            return Answer(reply.status, reply.headers, await self._read(reply, None, XML_BYTES_MAX))

    @asynccontextmanager
    async def _send(self, request: _Request) -> AsyncIterator[Reply]:
        path = self._path.rstrip("/") or "/" if request.key is None else self._path + request.key
        query = canonical_query(request.params)
        headers = {
            "host": self._host,
            "user-agent": self._options.user_agent,
            "x-amz-content-sha256": await self._payload(request.body),
            **request.headers,
        }
        if request.body is not None:
            headers["content-length"] = str(request.body.length)
        head = RequestHead(request.method, path, query, headers)
        extra, _ = sign(head, self._credentials, self._region, self._clock.now_ns(), self._keys)
        target = uri_encode(path, keep_slash=True) + (f"?{query}" if query else "")
        try:
            async with self._http.exchange(
                request.method, target.encode("ascii"), {**headers, **extra}, request.body
            ) as reply:
                yield reply
        except Unreachable as error:
            raise Unreachable(f"{self._peer.location} does not answer: {error}") from error

    async def _payload(self, body: Body | None) -> str:
        if body is None:
            return EMPTY_SHA256
        if not self._options.sign_payload:
            return Payload.UNSIGNED.value
        digest = hashlib.sha256()
        async for chunk in body.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    async def _raise_for(self, reply: Reply, request: _Request) -> None:
        if reply.status < 300:
            return
        body = await self._read(reply, None, ERROR_BYTES_MAX)
        raise error_of(Answer(reply.status, reply.headers, body), request.key or "", self._peer)

    async def _read(self, reply: Reply, length: int | None, bytes_max: int = 2**62) -> bytes:
        """The body: exactly `length` bytes, or up to `bytes_max`. Raises CorruptData for another count."""
        parts: list[bytes] = []
        have = 0
        limit = bytes_max if length is None else length
        piece = memoryview(bytearray(PIECE_BYTES))
        while count := await reply.read_into(piece):
            have += count
            if have > limit:
                raise CorruptData(f"{self._peer.location} sends more than was asked for")
            parts.append(bytes(piece[:count]))
        if length is not None and have != length:
            raise CorruptData(f"{self._peer.location} broke off after {have} of {length} bytes")
        if reply.to_come:
            raise Unreachable(f"it broke off after {have} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _expected_length(reply: Reply, start: int, stop: int | None, name: str) -> int:
    """How many bytes must follow. Raises CorruptData when the answer is not the range that was asked for."""
    length = reply.headers.get("content-length", "")
    if not length.isdigit():
        raise CorruptData(f"{name}: the answer has no length")
    count = int(length)
    if stop is not None and count != stop - start:
        raise CorruptData(f"{name}: {stop - start} bytes asked for, {count} offered")
    if reply.status == 206:
        if not reply.headers.get("content-range", "").startswith(f"bytes {start}-{start + count - 1}/"):
            raise CorruptData(f"{name}: the answer is another range than asked for")
    elif start:
        raise CorruptData(f"{name}: the server ignored the range")
    return count


def _body(data: bytes) -> Body:
    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield data

    return Body(len(data), chunks)


def _endpoint(url: str) -> tuple[str, str]:
    """Scheme and host[:port] as the Host header has it. Raises ConfigInvalid."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigInvalid(f"{url!r} is not an endpoint: write http://host:port or https://host") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigInvalid(f"{url!r} is not an endpoint: write http://host:port or https://host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, host if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f"{host}:{port}"


def _origin(scheme: str, host: str, verify: bool) -> Origin:
    parts = urlsplit(f"{scheme}://{host}")
    assert parts.hostname is not None
    if scheme == "http":
        return Origin(parts.hostname, parts.port or 80, None)
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return Origin(parts.hostname, parts.port or 443, context)
