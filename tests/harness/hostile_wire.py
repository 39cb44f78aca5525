"""The table of hostile requests, first half: HTTP itself, aws-chunked, lengths, signatures, dates, paths, documents.

Each row: name (which says the attack), what is sent, the status, the code ("" where there is none: the HTTP parser
answers without a body), the front door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.harness.hostile import Site, Wire


class Case(NamedTuple):
    name: str
    make: Callable[[Site], bytes | Wire]
    status: int
    code: str = ""
    front: str = "s3"


def raw(head: str, body: bytes = b"") -> Callable[[Site], bytes]:
    """A GET or PUT without signature, lines as they are; Host and Connection come along."""
    return lambda _: head.replace("\n", "\r\n").encode("latin-1") + b"\r\nHost: a\r\nConnection: close\r\n\r\n" + body


def get(lines: str, body: bytes = b"") -> Callable[[Site], bytes]:
    return raw(f"GET /own/k HTTP/1.1\n{lines}", body)


SECOND = b"GET /own/secret/k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HTTP = [
    Case(
        "length and coding, coding last",
        get("Content-Length: 6\nTransfer-Encoding: chunked", b"0\r\n\r\n" + SECOND),
        403,
        "AccessDenied",
    ),
    Case(
        "length and coding, coding first",
        get("Transfer-Encoding: chunked\nContent-Length: 6", b"0\r\n\r\n" + SECOND),
        403,
        "AccessDenied",
    ),
    Case("coding that is not the last", get("Transfer-Encoding: chunked, identity", b"0\r\n\r\n"), 400),
    Case("coding twice", get("Transfer-Encoding: chunked\nTransfer-Encoding: identity", b"0\r\n\r\n"), 400),
    Case("coding that only looks like chunked", get("Transfer-Encoding: xchunked", b"0\r\n\r\n"), 400),
    Case("coding behind a vertical tab", get("Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"), 400),
    Case("coding behind a space before the colon", get("Transfer-Encoding : chunked", b"0\r\n\r\n"), 400),
    Case("coding we do not undo", get("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"), 400),
    Case("chunked twice", get("Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"), 400),
    Case("coding in HTTP/1.0", raw("GET /own/k HTTP/1.0\nTransfer-Encoding: chunked", b"0\r\n\r\n"), 400),
    Case("two lengths", get("Content-Length: 5\nContent-Length: 6", b"hello"), 400),
    Case("a list of lengths", get("Content-Length: 5, 5", b"hello"), 400),
    Case("a negative length", get("Content-Length: -5", b"hello"), 400),
    Case("a length with a plus", get("Content-Length: +5", b"hello"), 400),
    Case("a length in hex", get("Content-Length: 0x5", b"hello"), 400),
    Case("a length with an underscore", get("Content-Length: 1_0", b"hello"), 400),
    Case("a length of nothing", get("Content-Length: ", b"hello"), 400),
    Case("a length beyond 64 bits", get("Content-Length: 99999999999999999999999", b"hello"), 400),
    Case("a length of 64 bits", get("Content-Length: 18446744073709551615", b"hello"), 431),
    Case("a folded line", get("X-A: b\n c"), 400),
    Case("a first header with a space", get(" X-A: b"), 400),
    Case("a bare CR", get("X-A: b\rX-B: c"), 400),
    Case("NUL in a header", get("X-A: b\0c"), 400),
    Case("a header without a name", get(": b"), 400),
    Case("a header without a colon", get("abc"), 400),
    Case("NUL in the path", raw("GET /own/k\0 HTTP/1.1"), 400),
    Case("a space in the path", raw("GET /own/k k HTTP/1.1"), 400),
    Case("tabs between the words", raw("GET\t/own/k\tHTTP/1.1"), 400),
    Case("HTTP/0.9", lambda _: b"GET /own/k\r\n\r\n", 400),
    Case("HTTP/1.2", raw("GET /own/k HTTP/1.2"), 400),
    Case("the preface of HTTP/2", lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
    Case("TLS to a plain port", lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    Case("no host", lambda _: b"GET /own/k HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    Case("two hosts", get("Host: b"), 400),
    Case("a host with a path", lambda _: b"GET /own/k HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n", 400),
    Case("CONNECT", raw("CONNECT a:80 HTTP/1.1"), 400, "InvalidURI"),
    Case("a method nobody knows", raw("BREW /own/k HTTP/1.1"), 405, "MethodNotAllowed"),
    Case("a method of 5,000 letters", raw("A" * 5000 + " /own/k HTTP/1.1"), 405, "MethodNotAllowed"),
    Case("an upgrade to HTTP/2", get("Upgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), 403, "AccessDenied"),
    Case("150 headers", get("\n".join(f"x-{n}: 1" for n in range(150))), 431),
    Case("headers of 80 KB", get("X-A: " + "a" * 80_000), 431),
    Case("headers of 600 KB", get("X-A: " + "a" * 600_000), 431),
    Case("a path of 70 KB", raw(f"GET /own/{'a' * 70_000} HTTP/1.1"), 414),
    Case("a second request in the body", get(f"Content-Length: {len(SECOND)}", SECOND), 403, "AccessDenied"),
    Case(
        "a chunk of negative size",
        raw("PUT /own/k HTTP/1.1\nTransfer-Encoding: chunked", b"-5\r\nhello\r\n0\r\n\r\n"),
        403,
        "AccessDenied",
    ),
    Case(
        "a chunk's size beyond 64 bits",
        raw("PUT /own/k HTTP/1.1\nTransfer-Encoding: chunked", b"1" + b"0" * 16 + b"\r\nx"),
        403,
        "AccessDenied",
    ),
    Case("a method by another header", get("X-HTTP-Method-Override: DELETE"), 403, "AccessDenied"),
]


# -- aws-chunked: of root's own put, so that nothing but the framing is wrong
UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
CRC = {"x_amz_trailer": "x-amz-checksum-crc32"}


def put(mangle: Callable[[list[bytes], str], bytes], kind: str = "", **more: str) -> Callable[[Site], Wire]:
    """Two chunks; `mangle` makes the body of the frames and the last signature."""

    def make(site: Site) -> Wire:
        how = {"kind": kind} if kind else {}
        wire, frames, last = site.chunked("/own/chunked", [b"a" * 8192, b"b" * 100], **how, **more)
        wire.body = mangle(frames, last)
        return wire.but(content_length=str(len(wire.body)))

    return make


def whole(frames: list[bytes], end: bytes = b"\r\n") -> bytes:
    return b"".join(frames) + end


CHUNKED = [
    Case("no last chunk", put(lambda f, _: whole(f[:2], b"")), 400, "IncompleteBody"),
    Case("no end of the last chunk", put(lambda f, _: whole(f, b"")), 400, "IncompleteBody"),
    Case("bytes behind the end", put(lambda f, _: whole(f, b"\r\nmore")), 400, "IncompleteBody"),
    Case("chunks swapped", put(lambda f, _: whole([f[1], f[0], f[2]])), 403, "SignatureDoesNotMatch"),
    Case("a chunk twice", put(lambda f, _: whole([f[0], f[0], f[2]])), 403, "SignatureDoesNotMatch"),
    Case("a chunk left out", put(lambda f, _: whole([f[0], f[2]])), 403, "SignatureDoesNotMatch"),
    Case("a byte changed", put(lambda f, _: whole(f).replace(b"aaaa", b"aaab", 1)), 403, "SignatureDoesNotMatch"),
    Case(
        "a signature changed",
        put(lambda f, _: whole(f).replace(b"signature=", b"signature=0", 1)),
        403,
        "SignatureDoesNotMatch",
    ),
    Case(
        "a chunk without signature",
        put(lambda f, _: b"2000\r\n" + b"a" * 8192 + b"\r\n" + whole(f[1:])),
        400,
        "IncompleteBody",
    ),
    Case(
        "signature of another name",
        put(lambda f, _: whole(f).replace(b"chunk-signature", b"chunk-signaturf")),
        400,
        "IncompleteBody",
    ),
    Case("a size too small", put(lambda f, _: whole(f).replace(b"2000;", b"1fff;")), 403, "SignatureDoesNotMatch"),
    Case("a size too large", put(lambda f, _: whole(f).replace(b"2000;", b"2001;")), 403, "SignatureDoesNotMatch"),
    Case("a negative size", put(lambda f, _: whole(f).replace(b"2000;", b"-2000;")), 400, "IncompleteBody"),
    Case("a size with 0x", put(lambda f, _: whole(f).replace(b"2000;", b"0x2000;")), 400, "IncompleteBody"),
    Case(
        "a size beyond all", put(lambda f, _: whole(f).replace(b"2000;", b"ffffffffffffffff;")), 400, "EntityTooLarge"
    ),
    Case(
        "a size of 17 digits", put(lambda f, _: whole(f).replace(b"2000;", b"0" * 13 + b"2000;")), 400, "IncompleteBody"
    ),
    Case("bare line feeds", put(lambda f, _: whole(f).replace(b"\r\n", b"\n")), 400, "IncompleteBody"),
    Case("an endless chunk head", put(lambda f, _: b"2000;" + b"x" * 5000), 400, "IncompleteBody"),
    Case("a decoded length that is too small", put(lambda f, _: whole(f), decoded="8291"), 400, "IncompleteBody"),
    Case("a decoded length that is too large", put(lambda f, _: whole(f), decoded="8293"), 400, "IncompleteBody"),
    Case("a decoded length that is no number", put(lambda f, _: whole(f), decoded="8e3"), 400, "InvalidArgument"),
    Case("a decoded length beyond 5 GiB", put(lambda f, _: whole(f), decoded=str(6 << 30)), 400, "EntityTooLarge"),
    Case(
        "a trailer nobody announced",
        put(lambda f, _: whole(f, b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n")),
        400,
        "MalformedTrailerError",
    ),
    Case(
        "a trailer of the wrong value",
        put(lambda f, _: whole(f, b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n"), UNSIGNED, **CRC),
        400,
        "BadDigest",
    ),
    Case(
        "a trailer that is no checksum",
        put(lambda f, _: whole(f, b"x-amz-checksum-crc32:zzz\r\n\r\n"), UNSIGNED, **CRC),
        400,
        "InvalidRequest",
    ),
    Case(
        "a trailer of another name",
        put(lambda f, _: whole(f, b"x-amz-checksum-sha1:AAAAAA==\r\n\r\n"), UNSIGNED, **CRC),
        400,
        "MalformedTrailerError",
    ),
    Case("a trailer that does not come", put(lambda f, _: whole(f), UNSIGNED, **CRC), 400, "MalformedTrailerError"),
    Case(
        "a trailer twice",
        put(lambda f, _: whole(f, b"x-amz-checksum-crc32:AAAAAA==\r\n" * 2 + b"\r\n"), UNSIGNED, **CRC),
        400,
        "MalformedTrailerError",
    ),
    Case(
        "trailers without end",
        put(lambda f, _: whole(f, b"".join(b"x-%d:%s\r\n" % (n, b"a" * 900) for n in range(30))), UNSIGNED, **CRC),
        400,
        "MalformedTrailerError",
    ),
    Case(
        "an unknown trailer announced",
        put(lambda f, _: whole(f), UNSIGNED, x_amz_trailer="x-amz-meta-a"),
        400,
        "InvalidRequest",
    ),
    Case(
        "signed trailers without signature",
        put(lambda f, _: whole(f, b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n"), SIGNED_TRAILER, **CRC),
        403,
        "SignatureDoesNotMatch",
    ),
    Case(
        "unsigned chunks where signed were announced",
        put(lambda f, _: b"2000\r\n" + b"a" * 8192 + b"\r\n0\r\n\r\n"),
        400,
        "IncompleteBody",
    ),
    Case(
        "a kind of SigV4A",
        lambda s: s.chunked("/own/chunked", [b"a"], "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")[0],
        400,
        "InvalidArgument",
    ),
]


# -- lengths and hashes of plain bodies
def plain_put(**changes: str) -> Callable[[Site], Wire]:
    return lambda s: s.signed("root", "PUT", "/own/plain", body=b"hello").but(**changes)


def with_headers(**headers: str) -> Callable[[Site], Wire]:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda s: s.signed("root", "PUT", "/own/plain", body=b"hello", headers=told)


LENGTHS = [
    Case(
        "no length", lambda s: s.signed("root", "PUT", "/own/plain").but(content_length=""), 411, "MissingContentLength"
    ),
    Case("a length beyond 5 GiB", plain_put(content_length=str(6 << 30), expect="100-continue"), 400, "EntityTooLarge"),
    Case("another body than was signed", lambda s: _with_body(s, b"HELLO"), 400, "XAmzContentSHA256Mismatch"),
    Case("a wrong Content-MD5", with_headers(content_md5="AAAAAAAAAAAAAAAAAAAAAA=="), 400, "BadDigest"),
    Case("a Content-MD5 that is none", with_headers(content_md5="nonsense"), 400, "InvalidDigest"),
    Case("a wrong checksum", with_headers(x_amz_checksum_crc32="AAAAAA=="), 400, "BadDigest"),
    Case(
        "two checksums", with_headers(x_amz_checksum_crc32="AAAAAA==", x_amz_checksum_sha1="a"), 400, "InvalidRequest"
    ),
    Case("a checksum of another length", with_headers(x_amz_checksum_sha256="AAAAAA=="), 400, "InvalidRequest"),
    Case("a trailer without chunks", with_headers(x_amz_trailer="x-amz-checksum-crc32"), 400, "InvalidRequest"),
    Case(
        "a hash that is no hash",
        lambda s: s.signed("root", "PUT", "/own/plain", body=b"x", payload="0" * 63),
        400,
        "InvalidArgument",
    ),
    Case("metadata of 3 KB", with_headers(x_amz_meta_a="a" * 3000), 400, "MetadataTooLarge"),
    Case("eleven tags", with_headers(x_amz_tagging="&".join(f"a{n}=b" for n in range(11))), 400, "InvalidTag"),
    Case("a tag twice", with_headers(x_amz_tagging="a=b&a=c"), 400, "InvalidTag"),
    Case("a storage class nobody knows", with_headers(x_amz_storage_class="NOWHERE"), 400, "InvalidStorageClass"),
]


def _with_body(site: Site, body: bytes) -> Wire:
    wire = site.signed("root", "PUT", "/own/plain", body=b"hello")
    wire.body = body
    return wire
