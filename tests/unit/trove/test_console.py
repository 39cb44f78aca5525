"""The console's server side: signing in, the mark, whose rights hold, static files, shares of one's own."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from qss.trove.console import MARK
from qss.trove.console_pages import CONTENT_POLICY, Pages
from qss.trove.sessions import FAILURES_MAX, LASTS_S
from tests.harness.trove_fronts import World, with_fronts

ROOT = ("AKROOT", "secret-key")


async def sign_in(client: httpx.AsyncClient, access_key: str, secret_key: str) -> httpx.Response:
    body = {"access_key": access_key, "secret_key": secret_key}
    answer = await client.post("/api/session", json=body, headers={MARK: ""})
    if answer.status_code == 200:
        client.headers[MARK] = answer.json()["mark"]
    return answer


@asynccontextmanager
async def signed_in(world: World, access_key: str = ROOT[0], secret_key: str = ROOT[1]):
    async with world.client("console") as client:
        assert (await sign_in(client, access_key, secret_key)).status_code == 200
        yield client


async def user(world: World, name: str, *statements: dict[str, Any]) -> tuple[str, str]:
    """A user with one key and one policy."""
    assert (await world.admin("POST", "/users", {"name": name})).status_code == 201
    if statements:
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]}
        assert (await world.admin("PUT", f"/users/{name}/policies/p", policy)).status_code == 200
    made = (await world.admin("POST", f"/users/{name}/keys")).json()
    return made["access_key"], made["secret_key"]


def test_signing_in_and_out(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with world.client("console") as client:
            assert (await client.get("/api/session")).json() == {"signed_in": False}
            assert (await client.get("/api/s3/")).status_code == 401
            told = await sign_in(client, *ROOT)
            assert (told.json()["user"], told.json()["is_root"]) == ("root", True)
            cookie = told.headers["set-cookie"]
            assert all(each in cookie for each in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LASTS_S}"))
            assert "Secure" not in cookie
            assert "secret-key" not in told.text + cookie
            assert told.headers["cache-control"] == "no-store"
            assert (await client.get("/api/session")).json() == told.json()
            assert (await client.put("/api/s3/bkt")).status_code == 200
            assert (await client.get("/api/s3/")).status_code == 200
            assert (await client.get("/api/admin/users")).status_code == 200
            kept = client.cookies.items()
            assert (await client.delete("/api/session")).json() == {"signed_in": False}
            client.cookies.update(dict(kept))  # what was signed out stays so
            assert (await client.get("/api/s3/")).status_code == 401

    with_fronts(tmp_path, work)


def test_the_cookie_keeps_to_tls_and_to_its_port(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        told = {}
        for url in ("http://node.test:9003", "https://node.test", "https://[::1]:9004"):
            async with world.client("console") as client:
                client.base_url = url
                body = {"access_key": ROOT[0], "secret_key": ROOT[1]}
                answer = await client.post("/api/session", json=body, headers={MARK: ""})
                assert answer.status_code == 200, (url, answer.text)
                cookie = answer.headers["set-cookie"]
                told[url] = cookie.partition("=")[0], cookie.endswith("; Secure")
        assert list(told.values()) == [
            ("trove_session_9003", False),
            ("trove_session", True),
            ("trove_session_9004", True),
        ]

    with_fronts(tmp_path, work)


def test_what_a_client_chooses_is_no_label(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with signed_in(world) as client:
            for path in ("/api/session", "/api/shares", "/api/none", "/none", "/api/s3/bkt", "/api/admin/none"):
                await client.request("MYOWN", path)
        seen = {operation for front, operation, _ in world.meters._requests if front == "console"}
        assert seen <= {"", "Session", "Shares", "Page"}, seen

    with_fronts(tmp_path, work)


def test_what_opens_nothing(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with world.client("console") as client:
            for wrong in (
                ("AKROOT", "wrong"),
                ("AKROOT", ""),
                ("", ""),
                ("none", ""),
                ("none", "secret-key"),
                ("ü", "x"),
            ):
                assert (await sign_in(client, *wrong)).status_code == 401, wrong
            for body in (b"", b"[]", b"{}", b"[[[", b'{"access_key": 1, "secret_key": 2}', b"\xff"):
                answer = await client.post("/api/session", content=body, headers={MARK: ""})
                assert answer.status_code == 401, body
            assert (await client.post("/api/session", content=b"x" * 70_000, headers={MARK: ""})).status_code == 400
            assert (await client.put("/api/session", headers={MARK: ""})).status_code == 405
            for secret in ("", "0" * 64, '"', "; ; ="):
                refused = await client.get("/api/s3/", headers={"cookie": f"trove_session={secret}"})
                assert refused.status_code == 401

    with_fronts(tmp_path, work)


def test_guessing_is_slow_but_not_for_those_who_know_later(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with world.client("console") as client:
            for _ in range(FAILURES_MAX):
                assert (await sign_in(client, "AKROOT", "guess")).status_code == 401
            refused = await sign_in(client, *ROOT)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
            world.clock.go(61)
            assert (await sign_in(client, *ROOT)).status_code == 200

    with_fronts(tmp_path, work)


def test_changes_want_the_mark_of_the_session(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with signed_in(world) as client, signed_in(world) as other:
            await client.put("/api/s3/bkt")
            marks = ["", "1", client.headers[MARK][:-1], other.headers[MARK]]
            changes = [
                ("PUT", "/api/s3/bkt/k"), ("DELETE", "/api/s3/bkt"), ("POST", "/api/s3/bkt?delete"),
                ("POST", "/api/admin/users"), ("POST", "/api/shares"), ("DELETE", "/api/session"),
            ]  # fmt: skip
            for method, path in changes:
                for mark in marks:
                    assert (await client.request(method, path, headers={MARK: mark})).status_code == 403, (method, path)
            del client.headers[MARK]
            for method, path in changes:
                assert (await client.request(method, path)).status_code == 403, (method, path)
            body = {"access_key": ROOT[0], "secret_key": ROOT[1]}
            assert (await client.post("/api/session", json=body)).status_code == 403
            assert (await client.get("/api/s3/bkt")).status_code == 200, "reading needs none"

    with_fronts(tmp_path, work)


def test_pages_of_other_sites_get_nothing(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with signed_in(world) as client:
            for site in ("cross-site", "same-site"):
                assert (await client.get("/api/s3/", headers={"sec-fetch-site": site})).status_code == 403
            for site in ("same-origin", "none"):
                assert (await client.get("/api/s3/", headers={"sec-fetch-site": site})).status_code == 200

    with_fronts(tmp_path, work)


def test_a_user_may_what_the_policies_say_and_no_more(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        bucket, objects = "arn:aws:s3:::bkt", "arn:aws:s3:::bkt/mine/*"
        keys = await user(
            world,
            "alice",
            {"Action": "s3:ListBucket", "Resource": bucket},
            {"Action": ["s3:GetObject", "s3:PutObject"], "Resource": objects},
        )
        async with signed_in(world) as root, signed_in(world, *keys) as alice:
            for path in ("bkt", "other", "bkt/mine/a", "bkt/secret", "other/x"):
                assert (await root.put(f"/api/s3/{path}", content=b"")).status_code == 200
            assert (await alice.get("/api/session")).json()["user"] == "alice"
            assert (await alice.get("/api/session")).json()["is_root"] is False
            expected = {
                "GET s3/": 403, "GET s3/bkt?list-type=2": 200, "GET s3/other?list-type=2": 403, "PUT s3/new": 403,
                "GET s3/bkt/mine/a": 200, "GET s3/bkt/secret": 403, "PUT s3/bkt/mine/b": 200, "PUT s3/bkt/b": 403,
                "DELETE s3/bkt/mine/a": 403, "GET s3/bkt?policy": 403, "PUT s3/bkt?policy": 403,
                "GET s3/bkt/mine%2F..%2Fsecret": 404, "GET admin/users": 403, "GET admin/status": 403,
                "GET admin/health/live": 403, "POST admin/users": 403, "GET nothing": 404, "GET s3/bkt?versions": 403,
            }  # fmt: skip
            for case, status in expected.items():
                method, path = case.split(" ")
                got = await alice.request(method, f"/api/{path}", content=b"{}" if method != "GET" else b"")
                assert got.status_code == status, (case, got.text)
            copied = await alice.put("/api/s3/bkt/mine/c", headers={"x-amz-copy-source": "/bkt/secret"})
            assert copied.status_code == 403, "the source of a copy is read with the same rights"

    with_fronts(tmp_path, work)


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        keys = await user(world, "bob", {"Action": "s3:*", "Resource": "*"})
        async with signed_in(world, *keys) as bob:
            assert (await bob.get("/api/s3/")).status_code == 200
            await world.admin("PUT", f"/users/bob/keys/{keys[0]}", {"enabled": False})
            assert (await bob.get("/api/s3/")).status_code == 401
            assert (await bob.get("/api/session")).json() == {"signed_in": False}
            assert (await sign_in(bob, *keys)).status_code == 401

    with_fronts(tmp_path, work)


def test_what_users_stored_is_saved_and_never_shown(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with signed_in(world) as client:
            await client.put("/api/s3/bkt")
            evil = {"content-type": "text/html", "content-disposition": "inline"}
            await client.put(
                "/api/s3/bkt/<script>alert(1)<%2Fscript>.html", content=b"<script>1</script>", headers=evil
            )
            query = "?response-content-disposition=inline&response-content-type=text/html"
            for more in ("", query):
                got = await client.get(f"/api/s3/bkt/<script>alert(1)<%2Fscript>.html{more}")
                assert got.content == b"<script>1</script>"
                assert got.headers.get_list("content-disposition") == ["attachment; filename*=UTF-8''script%3E.html"]
                assert got.headers["content-security-policy"].startswith("sandbox")
                assert got.headers["x-content-type-options"] == "nosniff"
            assert (await client.post("/api/s3/bkt", content=b"x")).status_code == 405, "no forms of browsers"
            listing = await client.get("/api/s3/bkt?list-type=2")
            assert listing.headers["cache-control"] == "no-store"

    with_fronts(tmp_path, work)


def test_pages_have_their_types_and_lead_nowhere_else(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with world.client("console") as client:
            kinds = {"": "text/html", "app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
            for name, kind in kinds.items():
                page = await client.get(f"/{name}")
                assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, kind)
                assert page.headers["content-security-policy"] == CONTENT_POLICY
                assert page.headers["x-frame-options"] == "DENY"
                assert page.headers["x-content-type-options"] == "nosniff"
                assert page.headers["referrer-policy"] == "no-referrer"
                assert page.headers["cache-control"] == "no-cache"
                again = await client.get(f"/{name}", headers={"if-none-match": page.headers["etag"]})
                assert (again.status_code, again.content) == (304, b"")
                head = await client.head(f"/{name}")
                assert (head.content, head.headers["content-length"]) == (b"", str(len(page.content)))
            for path in (
                "/index.htm", "/../console.py", "/%2e%2e/console.py", "/..%2fconsole.py", "/web/app.js",
                "/app.js/", "/app.js%00", "/%2Fetc%2Fpasswd", "/API/session", "/api",
            ):  # fmt: skip
                assert (await client.get(path)).status_code == 404, path
            assert (await client.post("/")).status_code == 405
            assert (await client.get("/health/ready")).status_code == 503

    with_fronts(tmp_path, work)


def test_the_page_needs_nothing_that_is_not_there() -> None:
    """Each file that another names is served, and nothing is asked of another host."""
    folder = Path(__file__).resolve().parents[3] / "qss" / "trove" / "web"
    paths = Pages().paths
    assert {path.name for path in folder.iterdir()} == {path.removeprefix("/") or "index.html" for path in paths}
    for file in folder.iterdir():
        text = file.read_text()
        assert "innerHTML" not in text, file
        for host in ("http://", "https://", "//cdn"):
            assert host not in text.replace("http://www.w3.org/", ""), (file, host)
        for line in text.splitlines():
            if line.startswith(("import ", "} from ")) and ' from "./' in line:
                assert f"/{line.split('./')[1].split(chr(34))[0]}" in paths, line


@pytest.mark.parametrize("whose", ["root", "alice"])
def test_shares_of_ones_own(tmp_path: Path, whose: str) -> None:
    async def work(world: World) -> None:
        read = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::bkt/a"}
        keys = {"alice": await user(world, "alice", read), "bob": await user(world, "bob"), "root": ROOT}
        async with signed_in(world) as root, signed_in(world, *keys[whose]) as client:
            await root.put("/api/s3/bkt")
            for name in "ab":
                await root.put(f"/api/s3/bkt/{name}", content=b"content")
            wish = {"bucket": "bkt", "key": "a", "uses_max": 2, "lasts_s": 60}
            refused = await client.post("/api/shares", json={**wish, "key": "b"})
            assert refused.status_code == (201 if whose == "root" else 403)
            assert (await client.post("/api/shares", json={**wish, "uses": 2})).status_code == 400
            made = (await client.post("/api/shares", json=wish)).json()
            assert [each["id"] for each in (await client.get("/api/shares")).json()["shares"]].count(made["id"]) == 1
            async with signed_in(world, *keys["bob"]) as bob:
                assert (await bob.get("/api/shares")).json() == {"shares": []}
                assert (await bob.delete(f"/api/shares/{made['id']}")).status_code == 404
            async with world.client("console") as anybody:
                got = await anybody.get(made["path"])
                assert (got.status_code, got.content) == (200, b"content")
                assert got.headers["content-disposition"].startswith("attachment")
            async with world.client("files") as anybody:
                assert (await anybody.get(made["path"])).status_code == 200
                assert (await anybody.get(made["path"])).status_code == 403, "used up"
            assert (await client.delete(f"/api/shares/{made['id']}")).status_code == 200
            assert (await client.delete(f"/api/shares/{made['id']}")).status_code == 404
            assert (await client.put(f"/api/shares/{made['id']}")).status_code == 405

    with_fronts(tmp_path, work)


def test_a_share_ends_with_the_rights_of_who_made_it(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        read = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::bkt/*"}
        keys = await user(world, "alice", read)
        async with signed_in(world) as root, signed_in(world, *keys) as alice:
            await root.put("/api/s3/bkt")
            await root.put("/api/s3/bkt/a", content=b"content")
            made = (await alice.post("/api/shares", json={"bucket": "bkt", "key": "a"})).json()
            assert made["user"] == keys[0]
            async with world.client("files") as anybody:
                assert (await anybody.get(made["path"])).status_code == 200
                await world.admin("DELETE", "/users/alice/policies/p")
                assert (await anybody.get(made["path"])).status_code == 403
                policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **read}]}
                await world.admin("PUT", "/users/alice/policies/p", policy)
                assert (await anybody.get(made["path"])).status_code == 200
                await world.admin("DELETE", f"/users/alice/keys/{keys[0]}")
                assert (await anybody.get(made["path"])).status_code == 403
            shares = (await root.get("/api/shares")).json()["shares"]
            assert [each["id"] for each in shares] == [made["id"]], "root still sees it"

    with_fronts(tmp_path, work)


def test_history_after_a_moment(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with signed_in(world) as client:
            for _ in range(3):
                world.clock.go(2)
                world.meters.sample()
            whole = (await client.get("/api/admin/history")).json()["samples"]
            assert len(whole) == 3
            assert whole[0]["requests"] == 1
            later = await client.get(f"/api/admin/history?after={json.dumps(whole[1]['at_s'])}")
            assert later.json()["samples"] == whole[2:]
            assert (await client.get("/api/admin/history?after=x")).status_code == 400

    with_fronts(tmp_path, work)
