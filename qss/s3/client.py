"""S3 over HTTP as an ObjectStore: one bucket, one prefix, one small pool of connections. On trio.

Requests, answers and transports are httpx's, without its client: cookies, redirects and environment proxies are not
wanted here, and URL normalisation would spoil keys such as "a/../b", so the transport gets the target as bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import httpx

from qss.errors import AccessDenied, ConfigInvalid, CorruptData, ObjectMissing, Refused, Unreachable
from qss.limits import KIB
from qss.s3 import inplace, room
from qss.s3.answers import Answer, Peer, error_of
from qss.s3.dates import http_date_ns, iso_date_ns
from qss.s3.http1 import HttpLimits, reason
from qss.s3.message import RequestHead
from qss.s3.scalars import number_of
from qss.s3.sigv4 import EMPTY_SHA256, Credentials, Payload, SigningKeys, canonical_query, sign, uri_encode
from qss.s3.store import Body, ObjectInfo
from qss.s3.transport import SYSTEM_TRUST, ReplyStream, TlsFiles, UploadStream, transport_to
from qss.s3.xml import XML_BYTES_MAX, Node, document, leaf, parse

ERROR_BYTES_MAX: Final = 64 * KIB
_USER_AGENT: Final = "qss"


class Clock(Protocol):
    """qss.host.Clock is one."""

    def now_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ClientOptions:
    connect_s_max: float = 5.0
    read_s_max: float = 30.0  # between two pieces of an answer
    connections_max: int = 16
    tls: TlsFiles = SYSTEM_TRUST
    sign_payload: bool = False  # reads each body twice; for servers that refuse UNSIGNED-PAYLOAD
    ask_fast_etag: bool = True  # x-trove-etag: blake3; others than Trove ignore it


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
        scheme, self._host = _endpoint(endpoint_url)
        self.bucket = bucket
        self.prefix = prefix
        self._credentials = Credentials(access_key, secret_key)
        self._clock = clock
        self._region = region
        self._options = options
        self._peer = Peer(f"{endpoint_url.rstrip('/')}/{bucket}", access_key)
        self._path = f"/{bucket}"
        self._url = httpx.URL(f"{scheme}://{self._host}/")
        self._keys = SigningKeys()
        timeout = httpx.Timeout(options.read_s_max, connect=options.connect_s_max)
        self._timeout = timeout.as_dict()
        limits = HttpLimits(options.connect_s_max, options.read_s_max, options.connections_max)
        self._transport = transport_to(scheme, self._host, limits, options.tls)

    def __repr__(self) -> str:
        return f"S3Client({self._peer.location!r}, prefix={self.prefix!r})"

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

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
        response = await self._send(request)
        try:
            if response.status_code == 416 and response.headers.get("content-range") == f"bytes */{start}":
                return b""
            await self._raise_for(response, request)
            length = _expected_length(response, start, None, self._name(key))
            return await self._read(response, length)
        finally:
            await _close(response)

    async def get_into(self, key: str, start: int, into: memoryview) -> None:
        if not into:
            await self._get_nothing(key, start)
            return
        stop = start + len(into)
        request = _Request("GET", self._name(key), headers={"range": f"bytes={start}-{stop - 1}"})
        response = await self._send(request)
        try:
            await self._raise_for(response, request)
            _expected_length(response, start, stop, self._name(key))
            await self._fill(response, into)
        finally:
            await _close(response)

    async def _get_nothing(self, key: str, start: int) -> None:
        if (await self.head(key)).size < start:
            raise CorruptData(f"{self._peer.location}/{self._name(key)} is shorter than {start} bytes")

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._whole(_Request("HEAD", self._name(key)))
        length = number_of(answer.headers.get("content-length", ""))
        if length is None:
            raise CorruptData(f"{self._peer.location}/{self._name(key)}: the answer has no length")
        etag = answer.headers.get("etag", "").strip('"')
        return ObjectInfo(key, length, etag, http_date_ns(answer.headers.get("last-modified", "")))

    async def hashes(self, key: str, spans: inplace.Spans) -> list[bytes] | None:
        """As qss.s3.store.HashesInPlace.hashes."""
        found: list[bytes] = []
        for first in range(0, len(spans), inplace.SPANS_MAX):
            part = spans[first : first + inplace.SPANS_MAX]
            answer = await self._whole(_Request("HEAD", self._name(key), headers={inplace.HEADER: inplace.ask(part)}))
            value = answer.headers.get(inplace.HEADER)
            if value is None:
                return None
            found += inplace.answered(value, len(part))
        return found

    async def free_bytes(self) -> int | None:
        """As qss.s3.store.TellsRoom.free_bytes."""
        return room.answered((await self._whole(_Request("HEAD"))).headers.get(room.HEADER))

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
        key, size = node.get("Key"), number_of(node.get("Size"))
        key = unquote(key.replace("+", " ")) if encoded else key
        if not key.startswith(self.prefix) or size is None:
            raise CorruptData(f"{self._peer.location}: a listing with an entry that was not asked for")
        etag = node.get("ETag").strip('"')
        return ObjectInfo(key[len(self.prefix) :], size, etag, iso_date_ns(node.get("LastModified")))

    def _name(self, key: str) -> str:
        return self.prefix + key

    # -- requests
    async def _whole(self, request: _Request) -> Answer:
        """Send, check the status, take the (small) body."""
        response = await self._send(request)
        try:
            await self._raise_for(response, request)
            body = b"" if request.method == "HEAD" else await self._read(response, None, XML_BYTES_MAX)
            return Answer(response.status_code, response.headers, body)
        finally:
            await _close(response)

    async def _send(self, request: _Request) -> httpx.Response:
        path = self._path if request.key is None else f"{self._path}/{request.key}"
        query = canonical_query(request.params)
        headers = {
            "host": self._host,
            "user-agent": _USER_AGENT,
            "x-amz-content-sha256": await self._payload(request.body),
            **request.headers,
        }
        if request.body is not None:
            headers["content-length"] = str(request.body.length)
        head = RequestHead(request.method, path, query, headers)
        extra, _ = sign(head, self._credentials, self._region, self._clock.now_ns(), self._keys)
        target = uri_encode(path, keep_slash=True) + (f"?{query}" if query else "")
        outgoing = httpx.Request(
            request.method,
            self._url,
            headers={**headers, **extra},
            stream=None if request.body is None else UploadStream(request.body),
            extensions={"target": target.encode("ascii"), "timeout": self._timeout},
        )
        try:
            return await self._transport.handle_async_request(outgoing)
        except (httpx.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    async def _payload(self, body: Body | None) -> str:
        if body is None:
            return EMPTY_SHA256
        if not self._options.sign_payload:
            return Payload.UNSIGNED.value
        digest = hashlib.sha256()
        async for chunk in body.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    async def _raise_for(self, response: httpx.Response, request: _Request) -> None:
        if response.status_code < 300:
            return
        body = b"" if request.method == "HEAD" else await self._read(response, None, ERROR_BYTES_MAX)
        raise error_of(Answer(response.status_code, response.headers, body), request.key or "", self._peer)

    async def _fill(self, response: httpx.Response, into: memoryview) -> None:
        """Exactly len(into) bytes of body. Raises CorruptData for another count."""
        have = 0
        stream = response.stream
        if not isinstance(stream, ReplyStream):
            into[:] = await self._read(response, len(into))
            return
        with self._trouble(len(into)):
            while have < len(into):
                count = await stream.read_into(into[have:])
                if not count:
                    raise CorruptData(f"{self._peer.location} broke off after {have} of {len(into)} bytes")
                have += count

    async def _read(self, response: httpx.Response, length: int | None, bytes_max: int = 2**62) -> bytes:
        """The body: exactly `length` bytes, or up to `bytes_max`. Raises CorruptData for another count."""
        parts: list[bytes] = []
        have = 0
        limit = bytes_max if length is None else length
        assert isinstance(response.stream, httpx.AsyncByteStream)
        with self._trouble(length):
            async for chunk in response.stream:
                have += len(chunk)
                if have > limit:
                    raise CorruptData(f"{self._peer.location} sends more than was asked for")
                parts.append(chunk)
        if length is not None and have != length:
            raise CorruptData(f"{self._peer.location} sent {have} of {length} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextmanager
    def _trouble(self, length: int | None) -> Generator[None]:
        """What goes wrong while a body is read: it ends early, or nothing comes any more."""
        try:
            yield
        except httpx.RemoteProtocolError as error:
            if length is not None:
                raise CorruptData(f"{self._peer.location} broke off: {error}") from error
            raise self._unreachable(error) from error
        except (httpx.HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self._peer.location} does not answer: {reason(error)}")


def _expected_length(response: httpx.Response, start: int, stop: int | None, name: str) -> int:
    """How many bytes must follow. Raises CorruptData when the answer is not the range that was asked for."""
    count = number_of(response.headers.get("content-length", ""))
    if count is None:
        raise CorruptData(f"{name}: the answer has no length")
    if stop is not None and count != stop - start:
        raise CorruptData(f"{name}: {stop - start} bytes asked for, {count} offered")
    if response.status_code == 206:
        if not response.headers.get("content-range", "").startswith(f"bytes {start}-{start + count - 1}/"):
            raise CorruptData(f"{name}: the answer is another range than asked for")
    elif start:
        raise CorruptData(f"{name}: the server ignored the range")
    return count


async def _close(response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    await response.stream.aclose()


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
