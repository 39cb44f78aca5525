"""The table of hostile requests, third part: paths, names and ids, and documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.harness.hostile import Site, Wire
from tests.harness.hostile_wire import Case

SECRET_PATH = "/own/secret/k"


def root(
    verb: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b"", **headers: str
) -> Callable[[Site], Wire]:
    """Root's own signed request: nothing but what it asks for is wrong."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda s: s.signed("root", verb, path, query, body=body, headers=told)


def unsigned(path: str) -> Callable[[Site], bytes]:
    return lambda s: s.plain("s3", "GET", path)


def climbing(site: Site) -> Wire:
    """As a proxy might normalise it: signed for one object, meant for another."""
    return site.signed("alice", "GET", "/own/alice/../secret/k")


DENIED, MISMATCH = "AccessDenied", "SignatureDoesNotMatch"
NO_BUCKET, NO_KEY, BAD_NAME = "NoSuchBucket", "NoSuchKey", "InvalidBucketName"
PATHS = [
    Case("up and over, as a user", climbing, 403, DENIED),
    Case("up and over, escaped", lambda s: _escaped(s, "/own/alice/..%2Fsecret/k"), 403, MISMATCH),
    Case("dots escaped", unsigned("/own/%2e%2e/other/k"), 403, DENIED),
    Case("dots escaped twice", root("GET", "/own/%252e%252e/other/k"), 404, NO_KEY),
    Case("dots are a key", root("GET", "/own/../other/k"), 404, NO_KEY),
    Case("out of the buckets", root("GET", "/../../etc/passwd"), 404, NO_BUCKET),
    Case("backslashes", root("GET", "/own\\..\\other\\k"), 404, NO_BUCKET),
    Case("an empty bucket", root("GET", "//own/secret/k"), 404, NO_BUCKET),
    Case("NUL in a key", unsigned("/own/a%00b"), 400, "InvalidURI"),
    Case("NUL in a key, signed", root("PUT", "/own/a\0b", body=b"x"), 400, "InvalidURI"),
    Case("overlong UTF-8", unsigned("/own/%c0%ae%c0%ae/k"), 400, "InvalidURI"),
    Case("half a character", unsigned("/own/%ed%a0%80"), 400, "InvalidURI"),
    Case("a byte that is no UTF-8", unsigned("/own/%ff"), 400, "InvalidURI"),
    Case("a key of 1,025 bytes", root("PUT", "/own/" + "a" * 1025, body=b"x"), 400, "KeyTooLongError"),
    Case("a key of 513 two-byte letters", root("PUT", "/own/" + "ä" * 513, body=b"x"), 400, "KeyTooLongError"),
    Case("a bucket of 5,000 letters", root("GET", "/" + "a" * 5000), 404, NO_BUCKET),
    *(
        Case(f"a bucket called {name[:20]}", root("PUT", f"/{name}"), 400, BAD_NAME)
        for name in (
            "..",
            "ab",
            "a" * 64,
            "UPPER",
            "under_score",
            "-first",
            "last-",
            "two..dots",
            "192.168.0.1",
            "xn--abc",
            "sp ace",
            "nul\x01",
            "a%b",
            "buck-s3alias",
        )
    ),
    Case("a version id that is a path", root("GET", SECRET_PATH, {"versionId": "../../x"}), 400, "InvalidArgument"),
    Case("a version id of 9,000 letters", root("GET", SECRET_PATH, {"versionId": "a" * 9000}), 400, "InvalidArgument"),
    Case("an upload id that is a path", root("GET", SECRET_PATH, {"uploadId": "../../x"}), 404, "NoSuchUpload"),
    Case("an upload id of 5,000 letters", root("DELETE", SECRET_PATH, {"uploadId": "z" * 5000}), 404, "NoSuchUpload"),
    Case(
        "a part beyond 10,000",
        root("PUT", SECRET_PATH, {"uploadId": "x", "partNumber": "10001"}, b"x"),
        400,
        "InvalidArgument",
    ),
    Case(
        "a token that is none",
        root("GET", "/own", {"list-type": "2", "continuation-token": "../.."}),
        400,
        "InvalidArgument",
    ),
    Case("max-keys below zero", root("GET", "/own", {"max-keys": "-1"}), 400, "InvalidArgument"),
    Case("max-keys beyond all", root("GET", "/own", {"max-keys": "9" * 30}), 400, "InvalidArgument"),
    Case("two subresources", root("GET", "/own", {"acl": "", "policy": ""}), 400, "InvalidRequest"),
    Case("a subresource nobody serves", root("GET", SECRET_PATH, {"torrent": ""}), 501, "NotImplemented"),
    Case("a copy of NUL", root("PUT", "/own/c", x_amz_copy_source="own/a%00b"), 404, NO_KEY),
    Case("a copy of no UTF-8", root("PUT", "/own/c", x_amz_copy_source="own/k%ff"), 400, "InvalidArgument"),
    Case("a copy of a bucket", root("PUT", "/own/c", x_amz_copy_source="/own"), 400, "InvalidArgument"),
    Case(
        "a copy of a version that is a path",
        root("PUT", "/own/c", x_amz_copy_source="own/secret/k?versionId=../x"),
        400,
        "InvalidArgument",
    ),
    Case(
        "a copy of an escaped version",
        root("PUT", "/own/c", x_amz_copy_source="own/secret/k%3FversionId=null"),
        404,
        NO_KEY,
    ),
]


def _escaped(site: Site, path: str) -> Wire:
    """Signed as it is written, which is not how the server reads it."""
    wire = site.signed("alice", "GET", path)
    return Wire(wire.method, path, wire.headers)


ENTITY = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


def statement(fields: str) -> bytes:
    """A policy of one statement."""
    return f'{{"Version": "2012-10-17", "Statement": {{{fields}}}}}'.encode()


DELETE = b"<Delete><Object><Key>secret/k</Key></Object></Delete>"
POLICY = {"policy": ""}
EVERYBODY = '"Effect": "Allow", "Principal": "*", '
XML, BAD_POLICY = "MalformedXML", "MalformedPolicy"
DOCUMENTS = [
    Case("an external entity", root("POST", "/own", {"delete": ""}, ENTITY + DELETE), 400, XML),
    Case(
        "entities that grow",
        root("POST", "/own", {"delete": ""}, b'<!DOCTYPE a [<!ENTITY b "bb">]>' + DELETE),
        400,
        XML,
    ),
    Case("another root", root("POST", "/own", {"delete": ""}, b"<Deletes/>"), 400, XML),
    Case("deep nesting", root("PUT", "/own", {"tagging": ""}, b"<Tagging>" * 5000), 400, XML),
    Case(
        "elements without end", root("PUT", "/own", {"versioning": ""}, b"<a>" + b"<b/>" * 900_000 + b"</a>"), 400, XML
    ),
    Case(
        "text between many elements",
        root("PUT", "/own", {"versioning": ""}, b"<a>" + b"x<b/>" * 150_000 + b"</a>"),
        400,
        XML,
    ),
    Case(
        "an attribute of 1 MB", root("PUT", "/own", {"versioning": ""}, b"<a b='" + b"x" * 1_000_000 + b"'/>"), 400, XML
    ),
    Case("a document of 5 MiB", root("PUT", "/own", {"versioning": ""}, b" " * (5 << 20)), 400, "EntityTooLarge"),
    Case("UTF-7", root("POST", "/own", {"delete": ""}, b'<?xml version="1.0" encoding="UTF-7"?>' + DELETE), 400, XML),
    Case(
        "UTF-16 with a DOCTYPE",
        root("POST", "/own", {"delete": ""}, (ENTITY + DELETE).decode().encode("utf-16")),
        400,
        XML,
    ),
    Case(
        "1,001 deletions",
        root("POST", "/own", {"delete": ""}, b"<Delete>" + b"<Object><Key>k</Key></Object>" * 1001 + b"</Delete>"),
        400,
        XML,
    ),
    Case("a deletion of nothing", root("POST", "/own", {"delete": ""}, b"<Delete/>"), 400, XML),
    Case(
        "a tag document of 100 KB",
        root("PUT", SECRET_PATH, {"tagging": ""}, b"<Tagging>" + b" " * 100_000),
        400,
        "EntityTooLarge",
    ),
    Case("a policy that is deep", root("PUT", "/own", POLICY, b"[" * 20_000), 400, BAD_POLICY),
    Case("a policy that is long", root("PUT", "/own", POLICY, b" " * 30_000), 400, BAD_POLICY),
    Case(
        "a policy with an unknown field",
        root("PUT", "/own", POLICY, b'{"Version": "2012-10-17", "Statements": []}'),
        400,
        BAD_POLICY,
    ),
    Case(
        "a policy with a name twice",
        root("PUT", "/own", POLICY, b'{"Version": "2012-10-17", "Version": "2008-10-17"}'),
        400,
        BAD_POLICY,
    ),
    Case("a policy with half a character", root("PUT", "/own", POLICY, b'{"\\ud800": 1}'), 400, BAD_POLICY),
    Case(
        "an Allow with NotPrincipal",
        root(
            "PUT",
            "/own",
            POLICY,
            statement('"Effect": "Allow", "NotPrincipal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::own/*"'),
        ),
        400,
        BAD_POLICY,
    ),
    Case(
        "a policy about another bucket",
        root(
            "PUT",
            "/own",
            POLICY,
            statement(EVERYBODY + '"Action": "s3:*", "Resource": "arn:aws:s3:::other/*"'),
        ),
        400,
        BAD_POLICY,
    ),
    Case(
        "a public policy where that is blocked",
        root(
            "PUT",
            "/own",
            POLICY,
            statement(EVERYBODY + '"Action": "s3:GetObject", "Resource": "arn:aws:s3:::own/*"'),
        ),
        403,
        DENIED,
    ),
    Case(
        "an ACL for everybody",
        root("PUT", "/own", {"acl": ""}, x_amz_acl="public-read"),
        400,
        "AccessControlListNotSupported",
    ),
    Case(
        "an object for everybody",
        root("PUT", "/own/c", None, b"x", x_amz_acl="public-read-write"),
        400,
        "AccessControlListNotSupported",
    ),
    Case(
        "an object granted to everybody",
        root("PUT", "/own/c", None, b"x", x_amz_grant_read='uri="http://acs.amazonaws.com/groups/global/AllUsers"'),
        400,
        "AccessControlListNotSupported",
    ),
]
