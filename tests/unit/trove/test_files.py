"""The file API: what a token opens, and nothing else; shares that end by time, by use and by revocation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from qss.errors import Retryable
from qss.s3.backend import PutRequest
from qss.s3.sse import CustomerKey, Encryption
from qss.trove.shares import KEY_FILE
from tests.harness.trove_fronts import ADMIN_TOKEN, World, with_fronts
from tests.harness.trove_node import Bytes

ADMIN = f"Bearer {ADMIN_TOKEN}"


async def make_bucket(world: World, name: str = "bkt") -> None:
    assert (await world.admin("POST", "/buckets", {"name": name})).status_code == 201


async def token(world: World, **what: object) -> str:
    made = await world.admin("POST", "/tokens", {"name": "t", **what})
    assert made.status_code == 201, made.text
    return made.json()["token"]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_the_life_of_a_file(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await make_bucket(world)
        bearer = await token(world, may=["read", "write", "delete"])
        async with world.client("files", authorization=f"Bearer {bearer}") as client:
            url, body = "/files/bkt/a%20folder/b%2Bc%25%C3%BC.png", b"0123456789" * 30_000
            put = await client.put(url, content=body, headers={"x-amz-meta-who": "me"})
            assert put.status_code == 200
            got = await client.get(url)
            assert (got.content, got.headers["content-type"]) == (body, "image/png")
            assert (got.headers["x-amz-meta-who"], got.headers["etag"]) == ("me", put.headers["etag"])
            assert got.headers["content-security-policy"].startswith("sandbox")
            head = await client.head(url)
            assert (head.status_code, head.headers["content-length"], head.content) == (200, "300000", b"")
            part = await client.get(url, headers={"range": "bytes=299998-"})
            assert (part.status_code, part.content) == (206, b"89")
            assert part.headers["content-range"] == "bytes 299998-299999/300000"
            whole = await client.get(url, headers={"range": "bytes=299998-", "if-range": '"of another file"'})
            assert (whole.status_code, whole.content) == (200, body)
            assert code(await client.get(url, headers={"range": "bytes=300000-"})) == (416, "InvalidRange")
            assert (await client.get(url, headers={"if-none-match": put.headers["etag"]})).status_code == 304
            assert code(await client.put(url, content=b"x", headers={"if-none-match": "*"}))[0] == 412
            assert code(await client.put(url, content=b"x", headers={"if-match": '"0"'}))[0] == 412
            assert (await client.get("/files")).json()["buckets"][0]["name"] == "bkt"
            page = (await client.get("/files/bkt?prefix=a%20folder/")).json()
            assert [each["key"] for each in page["objects"]] == ["a folder/b+c%ü.png"]
            assert (await client.get("/files/bkt/?delimiter=/")).json()["prefixes"] == ["a folder/"]
            assert (await client.delete(url)).status_code == 204
            assert code(await client.get(url)) == (404, "NoSuchKey")
            assert (await client.head(url)).status_code == 404
            assert code(await client.get("/files/none/k")) == (404, "NoSuchBucket")
            assert code(await client.post(url)) == (405, "MethodNotAllowed")
            assert code(await client.put("/files/bkt"))[0] == 405
            assert code(await client.get("/other"))[0] == 404

    with_fronts(tmp_path, work)


def test_encrypted_files(tmp_path: Path) -> None:
    """Those under the node's key are files like others; those under a customer's can only be had over S3."""

    async def work(world: World) -> None:
        await make_bucket(world)
        store, customer = world.node.store, CustomerKey(bytes(32), "")
        await store.set_encryption("bkt", encrypted=True)
        await store.put(PutRequest("bkt", "theirs", encryption=Encryption(customer)), Bytes(b"theirs"))
        made = {}
        for key in ("ours", "theirs"):
            async with world.client("files", authorization=ADMIN) as client:
                if key == "ours":
                    assert (await client.put("/files/bkt/ours", content=b"ours")).status_code == 200
            made[key] = (await world.admin("POST", "/shares", {"bucket": "bkt", "key": key})).json()["token"]
        async with world.client("files", authorization=ADMIN) as client:
            for url in ("/files/bkt/ours", f"/s/{made['ours']}"):
                got = await client.get(url)
                assert (got.content, got.headers["x-amz-server-side-encryption"]) == (b"ours", "AES256")
            for url in ("/files/bkt/theirs", f"/s/{made['theirs']}"):
                refused = await client.get(url)
                assert code(refused) == (400, "InvalidRequest")
                assert refused.json()["error"].startswith("This file is encrypted with a key of its owner's")
                assert (await client.head(url)).status_code == 400

    with_fronts(tmp_path, work)


def test_headers_that_mean_something_else_to_s3_mean_nothing_here(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await make_bucket(world)
        async with world.client("files", authorization=ADMIN) as client:
            await client.put("/files/bkt/secret", content=b"secret")
            bearer = await token(world, may=["read", "write"], prefix="mine/")
            client.headers["authorization"] = f"Bearer {bearer}"
            await client.put("/files/bkt/mine/x", content=b"own", headers={"x-amz-copy-source": "/bkt/secret"})
            assert (await client.get("/files/bkt/mine/x")).content == b"own"
            for query in ("uploads", "tagging", "acl", "versionId=null", "uploadId=1&partNumber=1"):
                assert (await client.get(f"/files/bkt/mine/x?{query}")).content == b"own"

    with_fronts(tmp_path, work)


def test_a_token_opens_what_it_says_until_it_ends(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await make_bucket(world)
        await make_bucket(world, "other")
        texts = {
            "reads": await token(world),
            "writes": await token(world, may=["write"]),
            "below": await token(world, may=["read", "write", "delete"], bucket="bkt", prefix="d/"),
            "short": await token(world, lasts_s=60),
        }
        async with world.client("files") as client:

            async def ask(name: str, method: str, path: str) -> int:
                headers = {"authorization": f"Bearer {texts[name]}"}
                return (await client.request(method, f"/files{path}", headers=headers)).status_code

            client.headers["authorization"] = ADMIN
            for path in ("bkt/k", "bkt/d/k", "other/d/k"):
                assert (await client.put(f"/files/{path}", content=b"x")).status_code == 200
            expected = {
                "reads": {"GET /bkt/k": 200, "PUT /bkt/k": 403, "DELETE /bkt/k": 403, "GET ": 200, "GET /bkt": 200},
                "writes": {"GET /bkt/k": 403, "HEAD /bkt/k": 403, "PUT /bkt/k": 200, "DELETE /bkt/k": 403, "GET ": 403},
                "below": {
                    "GET /bkt/d/k": 200, "GET /bkt/k": 403, "PUT /bkt/d/n": 200, "PUT /bkt/dn": 403, "GET ": 403,
                    "GET /other/d/k": 403, "GET /bkt": 403, "GET /bkt?prefix=d": 403, "GET /bkt?prefix=d/": 200,
                    "GET /bkt?prefix=d/k": 200, "GET /other?prefix=d/": 403, "DELETE /bkt/d/k": 204,
                    "GET /bkt/d/../k": 403,
                },
            }  # fmt: skip
            for name, cases in expected.items():
                for case, status in cases.items():
                    method, path = case.split(" ")
                    assert await ask(name, method, path) == status, (name, case)
            assert await ask("short", "GET", "/bkt/k") == 200
            world.clock.go(61)
            assert await ask("short", "GET", "/bkt/k") == 401
            listed = (await world.admin("GET", "/tokens")).json()["tokens"]
            assert len(listed) == 4
            assert not any(text.rpartition("_")[2] in json.dumps(listed) for text in texts.values())
            for text in ("", "Bearer", "Bearer x", f"Basic {texts['reads']}", f"Bearer {texts['reads'][:-1]}0x"):
                client.headers["authorization"] = text
                answer = await client.get("/files/bkt/k")
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            path = f"/tokens/{texts['reads'].split('_')[1]}"
            assert [(await world.admin("DELETE", path)).status_code for _ in range(2)] == [200, 404]
            assert await ask("reads", "GET", "/bkt/k") == 401

    with_fronts(tmp_path, work)


def test_a_token_outlives_the_process_and_its_secret_is_nowhere(tmp_path: Path) -> None:
    made: list[str] = []

    async def make(world: World) -> None:
        await make_bucket(world)
        made.append(await token(world, may=["read", "write"]))

    async def use(world: World) -> None:
        async with world.client("files", authorization=f"Bearer {made[0]}") as client:
            assert (await client.put("/files/bkt/k", content=b"x")).status_code == 200

    with_fronts(tmp_path, make)
    with_fronts(tmp_path, use)
    assert not any(made[0].encode()[-48:] in path.read_bytes() for path in tmp_path.glob("ledger*"))


def test_bodies_are_checked_and_quotas_hold(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await make_bucket(world)
        await world.admin("PUT", "/buckets/bkt/quota", {"bytes_max": 10})
        async with world.client("files", authorization=ADMIN) as client:
            assert code(await client.put("/files/bkt/k", content=b"x" * 11)) == (403, "QuotaExceeded")
            wrong = {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}
            assert code(await client.put("/files/bkt/k", content=b"x", headers=wrong)) == (400, "BadDigest")
            assert code(await client.get("/files/bkt/k"))[0] == 404

    with_fronts(tmp_path, work)


async def share(world: World, **what: object) -> dict:
    made = await world.admin("POST", "/shares", {"bucket": "bkt", "key": "d/ü.html", **what})
    assert made.status_code == 201, made.text
    return made.json()


async def with_file(world: World) -> httpx.AsyncClient:
    await make_bucket(world)
    async with world.client("files", authorization=ADMIN) as client:
        await client.put("/files/bkt/d/%C3%BC.html", content=b"<script>shared")
        await client.put("/files/bkt/d/%C3%BC.html2", content=b"not shared")
    return world.client("files")


def test_a_share_gives_one_file_to_whoever_has_the_link(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with await with_file(world) as client:
            assert (await world.admin("POST", "/shares", {"bucket": "bkt", "key": "none"})).status_code == 404
            made = await share(world, note="for you")
            for path in (made["path"], f"/s/{made['token']}", f"/s/{made['token']}/x/y"):
                got = await client.get(path)
                assert (got.status_code, got.content) == (200, b"<script>shared")
                assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC.html"
                assert got.headers["content-security-policy"].startswith("sandbox")
            assert (await client.get(made["path"], headers={"range": "bytes=0-0"})).content == b"<"
            for method in ("PUT", "POST", "DELETE"):
                assert (await client.request(method, made["path"])).status_code == 405
            text = made["token"]
            for wrong in (text[:-1], text[:-1] + "!", text[:5] + ("A" if text[5] != "A" else "B") + text[6:], ""):
                assert code(await client.get(f"/s/{wrong}")) == (404, "NotFound")
            headers = {"authorization": f"Bearer {text}"}
            assert (await client.get("/files/bkt/d/%C3%BC.html", headers=headers)).status_code == 401
            listed = (await world.admin("GET", "/shares")).json()["shares"]
            assert [(each["note"], each["uses"], each["holds"]) for each in listed] == [("for you", 4, True)]
            assert text not in json.dumps(listed)
            assert (await world.admin("DELETE", f"/shares/{made['id']}")).status_code == 200
            assert code(await client.get(made["path"])) == (404, "NotFound")
            assert (await world.admin("GET", f"/shares/{made['id']}")).status_code == 404

    with_fronts(tmp_path, work)


def test_a_share_ends_by_time_and_by_use(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        async with await with_file(world) as client:
            made = await share(world, lasts_s=60)
            assert (await client.get(made["path"])).status_code == 200
            world.clock.go(59)
            assert (await client.get(made["path"])).status_code == 200
            world.clock.go(2)
            assert code(await client.get(made["path"]))[0] == 403
            assert (await world.admin("GET", f"/shares/{made['id']}")).json()["holds"] is False
            made = await share(world, uses_max=3)
            for _ in range(5):
                assert (await client.head(made["path"])).status_code == 200  # gives nothing away
            answers = await asyncio.gather(*(client.get(made["path"]) for _ in range(10)))
            assert sorted(each.status_code for each in answers) == [200] * 3 + [403] * 7
            assert (await client.head(made["path"])).status_code == 403
            world.clock.go(30 * 86_400)
            await share(world)
            assert len((await world.admin("GET", "/shares")).json()["shares"]) == 1

    with_fronts(tmp_path, work)


def test_uses_are_counted_before_anything_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(world: World) -> None:
        async with await with_file(world) as client:
            made = await share(world, uses_max=2)
            paths.append(made["path"])
            assert (await client.get(made["path"])).status_code == 200

            async def fails(*_: object) -> None:
                raise Retryable("the disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(world.node.ledger, "put", fails)
                assert (await client.get(made["path"])).status_code == 503
            free = await share(world)
            paths.append(free["path"])
            assert (await client.get(free["path"])).status_code == 200

    async def second(world: World) -> None:
        """After a restart: one use is on record, so one is left; the count of the unlimited one came along."""
        async with world.client("files") as client:
            assert [(await client.get(paths[0])).status_code for _ in range(2)] == [200, 403]
            assert sorted(each["uses"] for each in (await world.admin("GET", "/shares")).json()["shares"]) == [1, 2]
            assert (await client.get(paths[1])).status_code == 200

    async def third(world: World) -> None:
        async with world.client("files") as client:
            assert (await client.get(paths[1])).status_code == 404

    paths: list[str] = []
    with_fronts(tmp_path, first)
    with_fronts(tmp_path, second)
    (tmp_path / KEY_FILE).unlink()
    with_fronts(tmp_path, third)


def test_health_is_at_every_front(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        for front in world.fronts.apps():
            async with world.client(front) as client:
                world.fronts.health.ready = False
                assert (await client.get("/-/health/live")).json() == {"live": True}
                assert (await client.get("/-/health/ready")).status_code == 503
                world.fronts.health.ready = True
                assert (await client.get("/-/health/ready")).json() == {"ready": True}
                if front != "s3":
                    assert (await client.get("/health/ready")).status_code == 200

    with_fronts(tmp_path, work)


def test_a_token_can_do_no_more_than_the_user_it_acts_for(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await make_bucket(world)
        await world.admin("POST", "/users", {"name": "ada"})
        key = (await world.admin("POST", "/users/ada/keys")).json()["access_key"]
        bearer = await token(world, may=["read", "write", "delete"], user=key)
        async with world.client("files", authorization=ADMIN) as client:
            await client.put("/files/bkt/k", content=b"x")
            client.headers["authorization"] = f"Bearer {bearer}"
            assert (await client.get("/files/bkt/k")).status_code == 403
            allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bkt/*"}
            policy = {"Version": "2012-10-17", "Statement": [allow]}
            assert (await world.admin("PUT", "/users/ada/policies/read", policy)).status_code == 200
            assert (await client.get("/files/bkt/k")).status_code == 200
            assert (await client.put("/files/bkt/k", content=b"y")).status_code == 403
            assert (await client.delete("/files/bkt/k")).status_code == 403
            assert (await client.get("/files/bkt")).status_code == 403
            assert (await client.get("/files")).status_code == 403
            assert (await world.admin("DELETE", "/users/ada")).status_code == 200
            assert (await client.get("/files/bkt/k")).status_code == 403

    with_fronts(tmp_path, work)
