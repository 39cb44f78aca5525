"""The table of hostile requests, fifth part: the file API with its tokens and shares, and the admin API."""

from __future__ import annotations

from collections.abc import Callable

from tests.harness.hostile import Site
from tests.harness.hostile_paths import statement
from tests.harness.hostile_wire import Case

DENIED = "AccessDenied"


def files(verb: str, path: str, token: str = "", body: bytes = b"", **headers: str) -> Callable[[Site], bytes]:
    """`token` and `{name}` in a path stand for what the site has found; a token with a space is a whole header."""

    def make(site: Site) -> bytes:
        told = dict(headers)
        if token:
            told["authorization"] = token if " " in token else f"Bearer {site.found[token]}"
        return site.plain("files", verb, site.filled(path), body, **told)

    return make


def share(change: Callable[[str], str], verb: str = "GET", rest: str = "") -> Callable[[Site], bytes]:
    """A share's token, changed."""
    return lambda s: s.plain("files", verb, f"/s/{change(s.found['share'])}{rest}")


def flipped(at: int) -> Callable[[str], str]:
    return lambda t: t[:at] + ("A" if t[at] != "A" else "B") + t[at + 1 :]


FILES = [
    Case("no token", files("GET", "/files/own/secret/k"), 401, DENIED),
    Case("an empty token", files("GET", "/files/own/secret/k", authorization="Bearer "), 401, DENIED),
    Case("a token nobody made", files("GET", "/files/own/secret/k", f"Bearer tft_{'0' * 16}_{'0' * 48}"), 401, DENIED),
    Case("a removed token", files("GET", "/files/own/secret/k", "removed"), 401, DENIED),
    Case(
        "a token cut off",
        lambda s: s.plain("files", "GET", "/files/own/alice/mine", authorization=f"Bearer {s.found['reader'][:-1]}"),
        401,
        DENIED,
    ),
    Case(
        "a token with another's id",
        lambda s: s.plain(
            "files",
            "GET",
            "/files/own/alice/mine",
            authorization=f"Bearer {s.found['eves'][:20]}{s.found['reader'][20:]}",
        ),
        401,
        DENIED,
    ),
    Case(
        "a token as Basic",
        lambda s: s.plain("files", "GET", "/files/own/alice/mine", authorization=f"Basic {s.found['reader']}"),
        401,
        DENIED,
    ),
    Case("a token in the query", files("GET", "/files/own/alice/mine?token={reader}"), 401, DENIED),
    Case(
        "a share's token as a bearer's",
        lambda s: s.plain("files", "GET", "/files/own/alice/mine", authorization=f"Bearer {s.found['share']}"),
        401,
        DENIED,
    ),
    Case("beside the prefix", files("GET", "/files/own/secret/k", "reader"), 403, DENIED),
    Case("up and over", files("GET", "/files/own/alice/../secret/k", "reader"), 404, "NoSuchKey"),
    Case("up and over, escaped", files("GET", "/files/own/alice%2F..%2Fsecret%2Fk", "reader"), 404, "NoSuchKey"),
    Case("another bucket", files("GET", "/files/other/alice/k", "reader"), 403, DENIED),
    Case("a write with a reader's token", files("PUT", "/files/own/alice/new", "reader", b"x"), 403, DENIED),
    Case("a deletion with a reader's token", files("DELETE", "/files/own/alice/mine", "reader"), 403, DENIED),
    Case("a list beside the prefix", files("GET", "/files/own?prefix=secret/", "reader"), 403, DENIED),
    Case("a list of all", files("GET", "/files/own", "reader"), 403, DENIED),
    Case("a list with two prefixes", files("GET", "/files/own?prefix=alice/&prefix=secret/", "reader"), 403, DENIED),
    Case("the buckets", files("GET", "/files", "reader"), 403, DENIED),
    Case("a token of a user without rights", files("GET", "/files/own/secret/k", "eves"), 403, DENIED),
    Case("a write for a user without rights", files("PUT", "/files/own/alice/new", "eves", b"x"), 403, DENIED),
    Case(
        "a copy by a header",
        files("PUT", "/files/other/new", "eves", x_amz_copy_source="own/secret/k", content_length="0"),
        403,
        DENIED,
    ),
    Case(
        "a method by a header",
        files("GET", "/files/own/secret/k", "eves", x_http_method_override="DELETE"),
        403,
        DENIED,
    ),
    Case("a POST", files("POST", "/files/own/alice/mine", "reader"), 405, "MethodNotAllowed"),
    Case("no UTF-8 in the path", files("GET", "/files/own/%ff", "reader"), 404, "NotFound"),
    Case("NUL in the path", files("GET", "/files/own/alice/%00", "reader"), 400, "InvalidURI"),
    Case("another front's paths", files("GET", "/users", "reader"), 404, "NotFound"),
    Case("a share that is none", share(lambda _: "nothing"), 404, "NotFound"),
    Case("an empty share", share(lambda _: ""), 404, "NotFound"),
    Case("a share cut off", share(lambda t: t[:-1]), 404, "NotFound"),
    Case("a share that is longer", share(lambda t: t + "A"), 404, "NotFound"),
    Case("a share with another id", share(flipped(4)), 404, "NotFound"),
    Case("a share with another time", share(flipped(26)), 404, "NotFound"),
    Case("a share with another tag", share(flipped(60)), 404, "NotFound"),
    Case("a share with another version", share(flipped(0)), 404, "NotFound"),
    Case("a share in 10,000 letters", share(lambda t: t * 130), 404, "NotFound"),
    Case("a share used up", files("GET", "/s/{once}"), 403, DENIED),
    Case("a share used up, by range", files("GET", "/s/{once}", range="bytes=0-0"), 403, DENIED),
    Case("a revoked share", files("GET", "/s/{revoked}"), 404, "NotFound"),
    Case("a share written to", share(lambda t: t, "PUT"), 405, "MethodNotAllowed"),
    Case("a share deleted", share(lambda t: t, "DELETE"), 405, "MethodNotAllowed"),
]


def admin(verb: str, path: str, body: bytes = b"", token: str = "", **headers: str) -> Callable[[Site], bytes]:
    def make(site: Site) -> bytes:
        told = dict(headers)
        if token:
            told["authorization"] = token.replace("TOKEN", site.server.admin_token)
        return site.plain("admin", verb, path, body, **told)

    return make


GOOD = "Bearer TOKEN"
ADMIN = [
    Case("no token", admin("GET", "/users"), 401),
    Case("a wrong token", admin("GET", "/users", token="Bearer x"), 401),
    Case("an empty token", admin("GET", "/users", token="Bearer "), 401),
    Case("the token and more", admin("GET", "/users", token="Bearer TOKENx"), 401),
    Case("the token as Basic", admin("GET", "/users", token="Basic TOKEN"), 401),
    Case(
        "the token twice",
        lambda s: s.plain("admin", "GET", "/users", authorization=f"Bearer {s.server.admin_token}", Authorization="x"),
        400,
    ),
    Case("the token in the query", lambda s: s.plain("admin", "GET", f"/users?token={s.server.admin_token}"), 401),
    Case(
        "the token in a cookie",
        lambda s: s.plain("admin", "GET", "/users", cookie=f"token={s.server.admin_token}"),
        401,
    ),
    Case(
        "the secret key as the token",
        lambda s: s.plain("admin", "GET", "/users", authorization=f"Bearer {s.server.secret_key}"),
        401,
    ),
    Case("a file token", lambda s: s.plain("admin", "GET", "/users", authorization=f"Bearer {s.found['reader']}"), 401),
    Case("no token, a path that is not there", admin("GET", "/nothing"), 401),
    Case("a health check that goes on", admin("GET", "/-/../users"), 401),
    Case("a public path that goes on", admin("GET", "/health/live/../../users"), 401),
    Case("a public path with two slashes", admin("GET", "//openapi.json"), 401),
    Case("a method by a header", admin("GET", "/users/alice", x_http_method_override="DELETE"), 401),
    Case("a method that is not there", admin("PATCH", "/users", token=GOOD), 405),
    Case(
        "a page of another origin",
        admin("POST", "/users", b'{"name": "mallory"}', origin="http://evil.example", content_type="text/plain"),
        401,
    ),
    Case(
        "a host that was rebound",
        lambda s: s.plain("admin", "POST", "/users", b'{"name": "mallory"}', host="evil.example"),
        401,
    ),
    Case("a body of 100 KB", admin("POST", "/users", b" " * 100_000, token=GOOD), 413),
    Case("a body of 100 KB without token", admin("POST", "/users", b" " * 100_000), 413),
    Case("a body that is deep", admin("POST", "/users", b"[" * 50_000, token=GOOD), 400, "InvalidRequest"),
    Case("a body that is a list", admin("POST", "/users", b"[]", token=GOOD), 400, "InvalidRequest"),
    Case(
        "a body with a name twice",
        admin("POST", "/users", b'{"name": "a", "name": "b"}', token=GOOD),
        400,
        "InvalidRequest",
    ),
    Case(
        "a body with half a character",
        admin("POST", "/users", b'{"name": "\\ud800"}', token=GOOD),
        400,
        "InvalidRequest",
    ),
    Case(
        "a field nobody knows",
        admin("POST", "/users", b'{"name": "mallory", "admin": true}', token=GOOD),
        400,
        "InvalidRequest",
    ),
    Case("a name that is a path", admin("POST", "/users", b'{"name": "../root"}', token=GOOD), 400, "InvalidArgument"),
    Case(
        "a name that is an ARN",
        admin("POST", "/users", b'{"name": "arn:aws:iam::0:root"}', token=GOOD),
        400,
        "InvalidArgument",
    ),
    Case(
        "a name of 1,000 letters",
        admin("POST", "/users", b'{"name": "' + b"a" * 1000 + b'"}', token=GOOD),
        400,
        "InvalidRequest",
    ),
    Case(
        "a user's policy with a principal",
        admin(
            "PUT",
            "/users/eve/policies/p",
            statement('"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"'),
            GOOD,
        ),
        400,
        "MalformedPolicy",
    ),
    Case(
        "a share of what is not there",
        admin("POST", "/shares", b'{"bucket": "own", "key": "nothing"}', token=GOOD),
        404,
        "NoSuchKey",
    ),
    Case(
        "a share for ever",
        admin("POST", "/shares", b'{"bucket": "own", "key": "alice/mine", "lasts_s": 99999999999}', token=GOOD),
        400,
        "InvalidRequest",
    ),
    Case(
        "a share of negative uses",
        admin("POST", "/shares", b'{"bucket": "own", "key": "alice/mine", "uses_max": -1}', token=GOOD),
        400,
        "InvalidRequest",
    ),
]

FRONTS = [
    *(case._replace(name=f"files: {case.name}", front="files") for case in FILES),
    *(case._replace(name=f"admin: {case.name}", front="admin") for case in ADMIN),
]
