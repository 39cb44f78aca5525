"""A Trove with something to lose, and requests made byte by byte against it, as no client library would send them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

from qss.host import SystemClock
from qss.s3.message import RequestHead
from qss.s3.sigv4 import ChunkSigning, Credentials, SigningKeys, presign, sign, timestamp_of, uri_encode
from qss.trove.testing import TroveServer
from tests.harness.s3_chunks import encode_chunk

SECRET = b"the secret that only root may read"
REGION = "us-east-1"
WAIT_S_MAX = 30.0
TRIES_MAX = 5
_CODE = re.compile(rb'<Code>(\w+)</Code>|"code": "(\w+)"')


@dataclass(frozen=True)
class Answer:
    status: int  # 0: none, the connection was closed
    head: bytes
    body: bytes
    more: int = 0  # answers behind the first

    @property
    def code(self) -> str:
        found = _CODE.search(self.body)
        return "" if found is None else (found[1] or found[2]).decode()

    def header(self, name: str) -> str:
        found = re.search(rb"(?im)^" + name.encode() + rb": (.*?)\r$", self.head)
        return "" if found is None else found[1].decode()


def read_answer(data: bytes) -> Answer:
    """What a connection has answered until it was closed."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    more = len(re.findall(rb"(?m)^HTTP/1\.[01] \d{3}", data)) - 1
    return Answer(int(status[1]) if status else 0, head + b"\r\n", body, max(more, 0))


def send(port: int, data: bytes) -> Answer:
    """Send bytes and read until the server closes: `data` has to bring it to that."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S_MAX) as connection:
        found = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65_536):
                found += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return read_answer(found)


def patiently(ask: Callable[[], Answer], but: str = "RequestTimeout") -> Answer:
    """Ask; and again when the server did not wait for us, which may not have run for a while: it says nothing at all,
    or the code `but`."""
    for _ in range(TRIES_MAX):
        answer = ask()
        if answer.status and (not but or answer.code != but):
            break
    return answer


@dataclass
class Wire:
    """A request that can still be tampered with. `target` is as sent, header names as sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    signing: ChunkSigning | None = None

    def but(self, **changes: str) -> Wire:
        """With other values of headers; names with _ for -. An empty one is taken off."""
        told = {name.replace("_", "-"): value for name, value in changes.items()}
        return replace(self, headers={name: value for name, value in (self.headers | told).items() if value})

    def bytes(self) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        close = "" if "connection" in self.headers else "Connection: close\r\n"
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}{close}\r\n".encode() + self.body


@dataclass
class Site:
    """The server and what has been made on it. Users: "root", and those of `keys`."""

    server: TroveServer
    keys: dict[str, Credentials]
    found: dict[str, str] = field(default_factory=dict)  # ids, tokens

    def port(self, front: str = "s3") -> int:
        return int(self.server.url(front).rpartition(":")[2])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port()}"

    # -- requests
    def signed(
        self,
        who: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Wire:
        """`how`: `skew_s`, `payload` (x-amz-content-sha256), `region`, `credentials`."""
        payload = how.get("payload", hashlib.sha256(body).hexdigest())
        fields = {"host": self.host, "x-amz-content-sha256": payload, **(headers or {})}
        text = urlencode(query or {}, quote_via=quote)
        now_ns = SystemClock().now_ns() + int(how.get("skew_s", 0) * 1e9)
        head = RequestHead(method, path, text, fields)
        credentials = how.get("credentials", self.keys[who])
        added, signing = sign(head, credentials, how.get("region", REGION), now_ns, SigningKeys())
        fields |= added
        if body or method in ("PUT", "POST"):
            fields["content-length"] = str(len(body))
        target = uri_encode(path, keep_slash=True) + (f"?{text}" if text else "")
        return Wire(method, target, fields, body, signing)

    def resigned(self, wire: Wire, who: str, path: str, query: str) -> Wire:
        """With this query, letter by letter, under a good signature."""
        fields = {name: wire.headers[name] for name in ("host", "x-amz-content-sha256")}
        head = RequestHead(wire.method, path, query, fields)
        added, _ = sign(head, self.keys[who], REGION, SystemClock().now_ns(), SigningKeys())
        return replace(wire, target=f"{path}?{query}", headers=fields | added)

    def filled(self, text: str) -> str:
        """`{name}` becomes what was found under it."""
        return re.sub(r"\{([^{}]+)\}", lambda each: self.found.get(each[1], each[0]), text)

    def ask(self, who: str, method: str, path: str, query: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """A request as it should be. Again when the server has let us go: we may not have run for a while."""
        return patiently(lambda: send(self.port(), self.signed(who, method, path, query, **more).bytes()))

    def presigned(self, who: str, method: str, path: str, expires_s: int = 60, skew_s: int = 0) -> Wire:
        head = RequestHead(method, path, "", {"host": self.host})
        now_ns = SystemClock().now_ns() + skew_s * 1_000_000_000
        text = presign(head, self.keys[who], REGION, now_ns, expires_s)
        return Wire(method, f"{uri_encode(path, keep_slash=True)}?{text}", {"host": self.host})

    def chunked(
        self, path: str, chunks: Sequence[bytes], kind: str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", **headers: str
    ) -> tuple[Wire, list[bytes], str]:
        """Root's put in aws-chunked: the head, its frames (the last one is that of size 0), the last signature."""
        length = headers.pop("decoded", str(sum(map(len, chunks))))
        more = {"x-amz-decoded-content-length": length, "content-encoding": "aws-chunked"}
        more |= {name.replace("_", "-"): value for name, value in headers.items()}
        wire = self.signed("root", "PUT", path, headers=more, payload=kind)
        assert wire.signing is not None
        signing = None if kind.startswith("STREAMING-UNSIGNED") else wire.signing
        frames, previous = [], wire.signing.seed
        for chunk in (*chunks, b""):
            frame, previous = encode_chunk(chunk, signing, previous)
            frames.append(frame)
        return wire, frames, previous

    def form(self, fields: Sequence[tuple[str, str]], bucket: str = "own", file: bytes | None = b"form") -> Wire:
        """A browser's form, fields in this order, then the file."""
        parts = [
            f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value.encode() + b"\r\n"
            for name, value in fields
        ]
        if file is not None:
            head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="../../up/f.txt"\r\n\r\n'
            parts.append(head + file + b"\r\n")
        body = b"".join(parts) + b"--frontier--\r\n"
        headers = {"host": self.host, "content-type": "multipart/form-data; boundary=frontier"}
        return Wire("POST", f"/{bucket}", headers | {"content-length": str(len(body))}, body)

    def policy(self, who: str, conditions: Sequence[Any], expiration: str = "2099-01-01T00:00:00Z") -> dict[str, str]:
        """The fields of a signed policy."""
        stamp = timestamp_of(SystemClock().now_ns())
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        fields = {
            "x-amz-algorithm": "AWS4-HMAC-SHA256",
            "x-amz-credential": f"{self.keys[who].access_key}/{scope}",
            "x-amz-date": stamp,
        }
        wanted = [*conditions, *({name: value} for name, value in fields.items())]
        text = base64.b64encode(json.dumps({"expiration": expiration, "conditions": wanted}).encode()).decode()
        key = f"AWS4{self.keys[who].secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return fields | {"policy": text, "x-amz-signature": hmac.digest(key, text.encode(), "sha256").hex()}

    def plain(self, front: str, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        """A request without a signature, as bytes."""
        fields = {"host": "a", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body:
            fields.setdefault("content-length", str(len(body)))
        return Wire(method, target, fields, body).bytes()

    def admin(self, method: str, path: str, value: object = None) -> Any:
        """The admin API as it should be asked."""
        body = b"" if value is None else json.dumps(value).encode()
        token = f"Bearer {self.server.admin_token}"
        answer = send(self.port("admin"), self.plain("admin", method, path, body, authorization=token))
        assert answer.status in (200, 201), answer
        return json.loads(answer.body)

    # -- what must stay as it is
    def census(self) -> list[bytes]:
        """All there is: buckets, versions, uploads, policies, tags, users, tokens, shares."""
        kinds = ("versions", "uploads", "policy", "tagging")
        paths = [(f"/{bucket}", {kind: ""}) for bucket in ("own", "other", "locked") for kind in kinds]
        wires = [self.signed("root", "GET", path, query) for path, query in (*paths, ("/", {}))]
        found = [re.sub(rb"<RequestId>.*", b"", body) for body in self._bodies(wires)]
        return found + self.ledger()

    def ledger(self) -> list[bytes]:
        """What the admin API changes."""
        return [json.dumps(self.admin("GET", path)).encode() for path in ("/users", "/tokens", "/shares", "/buckets")]

    def written(self) -> tuple[int, ...]:
        """Changes with whatever is written to the volumes: an object, a part, a deletion, a setting of a bucket."""
        status = self.admin("GET", "/status")
        return status["objects"], status["bytes"], status["commits"]

    def _bodies(self, wires: Sequence[Wire]) -> list[bytes]:
        """One after the other on one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=WAIT_S_MAX)
        found = []
        for wire in wires:
            connection.request(wire.method, wire.target, headers=wire.headers)
            found.append(connection.getresponse().read())
        connection.close()
        return found


_ALLOWED_TO_ALICE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::own/alice/*", "arn:aws:s3:::locked/*"]},
        {"Effect": "Deny", "Action": "s3:BypassGovernanceRetention", "Resource": "*"},
        {"Effect": "Deny", "NotAction": "s3:*Object*", "Resource": "arn:aws:s3:::locked"},
        {"Effect": "Deny", "Action": "s3:GetObjectVersion", "Resource": "arn:aws:s3:::own/alice/versioned"},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketVersions"],
            "Resource": "arn:aws:s3:::own",
            "Condition": {"StringLike": {"s3:prefix": "alice/*"}},
        },
    ],
}
_ONLY_ROOT = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Deny",
            "NotPrincipal": {"AWS": "arn:aws:iam::000000000000:root"},
            "Action": "s3:*",
            "Resource": ["arn:aws:s3:::other", "arn:aws:s3:::other/*"],
        }
    ],
}
UPLOAD = re.compile(rb"<UploadId>([^<]+)</UploadId>")


def _furnish(site: Site) -> None:
    """Buckets, objects, users, uploads, tokens: something to lose."""
    for name in ("own", "other"):
        assert site.ask("root", "PUT", f"/{name}").status == 200
    lock = {"x-amz-bucket-object-lock-enabled": "true"}
    assert site.ask("root", "PUT", "/locked", headers=lock).status == 200
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert site.ask("root", "PUT", "/own", {"versioning": ""}, body=enabled).status == 200
    for path in ("/own/secret/k", "/other/k", "/own/alice/versioned", "/own/alice/mine"):
        site.found[path] = site.ask("root", "PUT", path, body=SECRET).header("x-amz-version-id")
    site.ask("root", "PUT", "/own/alice/versioned", body=b"newer")
    hold = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2099-01-01T00:00:00Z"}
    site.found["locked"] = site.ask("root", "PUT", "/locked/k", body=SECRET, headers=hold).header("x-amz-version-id")
    for user, policy in (("alice", _ALLOWED_TO_ALICE), ("eve", None), ("gone", _ALLOWED_TO_ALICE)):
        site.admin("POST", "/users", {"name": user})
        made = site.admin("POST", f"/users/{user}/keys")
        site.keys[user] = Credentials(made["access_key"], made["secret_key"])
        if policy is not None:
            site.admin("PUT", f"/users/{user}/policies/p", policy)
    site.admin("PUT", f"/users/gone/keys/{site.keys['gone'].access_key}", {"enabled": False})
    site.ask("root", "PUT", "/other", {"policy": ""}, body=json.dumps(_ONLY_ROOT).encode())
    for name, path in (("upload", "/own/secret/up"), ("alices", "/own/alice/up"), ("others", "/other/up")):
        found = UPLOAD.search(site.ask("root", "POST", path, {"uploads": ""}).body)
        assert found is not None
        site.found[name] = found[1].decode()
        part = site.ask("root", "PUT", path, {"uploadId": site.found[name], "partNumber": "1"}, body=SECRET)
        site.found[f"{name} etag"] = part.header("etag")
    _furnish_files(site)


def _furnish_files(site: Site) -> None:
    site.found["reader"] = site.admin(
        "POST", "/tokens", {"name": "r", "may": ["read"], "bucket": "own", "prefix": "alice/"}
    )["token"]
    site.found["eves"] = site.admin(
        "POST", "/tokens", {"name": "e", "may": ["read", "write", "delete"], "user": site.keys["eve"].access_key}
    )["token"]
    removed = site.admin("POST", "/tokens", {"name": "x", "may": ["read"]})
    site.found["removed"] = removed["token"]
    site.admin("DELETE", f"/tokens/{removed['id']}")
    for name, body in (("share", {}), ("once", {"uses_max": 1}), ("revoked", {})):
        made = site.admin("POST", "/shares", {"bucket": "own", "key": "alice/mine", **body})
        site.found[name] = made["token"]
        if name == "revoked":
            site.admin("DELETE", f"/shares/{made['id']}")
    once = send(site.port("files"), site.plain("files", "GET", f"/s/{site.found['once']}"))
    assert once.body == SECRET


@contextmanager
def hostile_site() -> Iterator[Site]:
    """A server of its own, furnished."""
    with TroveServer(fronts=("s3", "files", "admin"), access_key="ROOTKEY") as server:
        site = Site(server, {"root": Credentials("ROOTKEY", server.secret_key)})
        _furnish(site)
        yield site
