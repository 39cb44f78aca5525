"""The admin API is what its description says: every route is in it, wants a token, takes and gives what it tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qss.s3.errors import S3Error
from qss.trove.admin import Admin
from qss.trove.openapi import describe, operation_id
from qss.trove.routes import Route, check, find, read_body
from tests.harness.trove_fronts import ADMIN_TOKEN, World, with_fronts
from tests.harness.trove_node import Bytes

GOOD = f"Bearer {ADMIN_TOKEN}"


def with_admin(directory: Path, work) -> None:
    """With all routes that a node has."""

    async def given(world: World) -> None:
        await work(world.fronts.admin, world.node)

    with_fronts(directory, given)


async def ask(admin: Admin, method: str, path: str, body: Any = None, query: str = "") -> tuple[int, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    status, kind, content = await admin.answer(method, path, GOOD, data, query)
    return status, json.loads(content) if kind == "application/json" else content


def sample(schema: dict[str, Any], *, wrong: bool = False) -> Any:
    """A value of a schema, or one that is just not."""
    kinds = schema.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    values: dict[str, tuple[Any, Any]] = {
        "string": ("x" * max(3, schema.get("minLength", 0)), 7),
        "integer": (max(1, schema.get("minimum", 1)), "x"),
        "number": (1.5, "x"),
        "boolean": (True, "x"),
        "array": ([], "x"),
    }
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: sample(each, wrong=wrong) for name, each in properties.items()} or ({"no": 1} if wrong else {})
    if "enum" in schema and not wrong:
        return schema["enum"][0]
    return values[kind][wrong]


def test_the_description_names_every_route_and_nothing_else(tmp_path: Path) -> None:
    async def work(admin: Admin, _: Any) -> None:
        status, _, content = await admin.answer("GET", "/openapi.json", "", b"")
        assert status == 200
        told = json.loads(content)
        assert told["openapi"].startswith("3.1")
        paths = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
        assert paths == {(route.method, route.path) for route in admin.routes}
        assert len(paths) == len(admin.routes), "two routes are one"
        ids = [operation["operationId"] for methods in told["paths"].values() for operation in methods.values()]
        assert len(set(ids)) == len(ids)

    with_admin(tmp_path, work)


def test_every_route_wants_the_token_unless_it_says_so_and_refuses_what_it_does_not_take(tmp_path: Path) -> None:
    async def work(admin: Admin, _: Any) -> None:
        told = describe(admin.routes, "t", "1")["paths"]
        for route in admin.routes:
            path = "/".join("abc" if piece.startswith("{") else piece for piece in route.path.split("/"))
            operation = told[route.path][route.method.lower()]
            for wrong in ("", "Bearer ", GOOD[:-1], f"{GOOD}s", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN):
                status, _, content = await admin.answer(route.method, path, wrong, b"")
                assert (status == 401) == (not route.public), (route.path, wrong)
                if status == 401:
                    assert "error" in json.loads(content)
            assert ("security" in operation) == route.public
            if route.takes is None:
                assert "requestBody" not in operation
                assert (await ask(admin, route.method, path, {"a": 1}))[0] == 400, route.path
            else:
                check(route.takes, sample(route.takes), "sample")
                status, value = await ask(admin, route.method, path, sample(route.takes, wrong=True))
                assert status == 400 or "properties" not in route.takes, (route.path, value)
                assert status >= 400, (route.path, value)
                assert (await ask(admin, route.method, path, [1]))[0] == 400
                assert (await admin.answer(route.method, path, GOOD, b"{"))[0] == 400
                assert (await admin.answer(route.method, path, GOOD, b"[" * 60_000))[0] == 400

    with_admin(tmp_path, work)


def test_what_the_routes_give_fits_their_schemas(tmp_path: Path) -> None:
    """One call of each that reads, on a node that holds something."""

    async def work(admin: Admin, opened: Any) -> None:
        assert (await ask(admin, "POST", "/buckets", {"name": "abc"}))[0] == 201
        from qss.s3.backend import PutRequest

        await opened.store.put(PutRequest("abc", "d/k"), Bytes(b"12345"))
        for route in admin.routes:
            if route.method != "GET" or route.names not in ([], ["bucket"]):
                continue
            status, value = await ask(admin, "GET", route.path.replace("{bucket}", "abc"))
            described = route.status if route.path != "/health/ready" else 503
            assert status == described, route.path
            if route.kind == "application/json":
                check(route.gives, value, route.path)

    with_admin(tmp_path, work)


def test_buckets_and_quotas(tmp_path: Path) -> None:
    async def work(admin: Admin, opened: Any) -> None:
        from qss.s3.backend import DeleteRequest, PutRequest

        assert (await ask(admin, "POST", "/buckets", {"name": "Not_A_Name"}))[0] == 400
        status, made = await ask(admin, "POST", "/buckets", {"name": "bkt"})
        assert (status, made["objects"], made["bytes"], made["quota"]) == (201, 0, 0, None)
        assert (await ask(admin, "POST", "/buckets", {"name": "bkt"}))[0] == 409
        for key in ("a", "d/1", "d/2", "é"):
            await opened.store.put(PutRequest("bkt", key), Bytes(b"x" * 10))
        status, page = await ask(admin, "GET", "/buckets/bkt/objects", query="delimiter=%2F&limit=2")
        assert [each["key"] for each in page["objects"]] == ["a"]
        assert (page["prefixes"], page["next_after"]) == (["d/"], "d/")
        status, page = await ask(admin, "GET", "/buckets/bkt/objects", query="delimiter=/&after=d/")
        assert ([each["key"] for each in page["objects"]], page["next_after"]) == (["é"], None)
        assert (await ask(admin, "GET", "/buckets/bkt/objects", query="limit=x"))[0] == 400
        quota = {"bytes_max": 45, "objects_max": None}
        assert await ask(admin, "PUT", "/buckets/bkt/quota", quota) == (200, quota)
        assert await ask(admin, "GET", "/buckets/bkt/quota") == (200, quota)
        assert (await ask(admin, "GET", "/buckets/bkt"))[1]["quota"] == quota
        with pytest.raises(S3Error, match="45 bytes; 40"):
            await opened.store.put(PutRequest("bkt", "more"), Bytes(b"x" * 10))
        for wrong in ({"bytes_max": -1}, {"bytes_max": 1.5}, {"bytes_max": True}, {"bytes_max": "1"}, {"byte_max": 1}):
            assert (await ask(admin, "PUT", "/buckets/bkt/quota", wrong))[0] == 400, wrong
        assert (await ask(admin, "PUT", "/buckets/none/quota", {}))[0] == 404
        status, refusal = await ask(admin, "DELETE", "/buckets/bkt")
        assert (status, refusal["code"]) == (409, "BucketNotEmpty")
        await opened.store.delete("bkt", [DeleteRequest(key) for key in ("a", "d/1", "d/2", "é")])
        assert await ask(admin, "DELETE", "/buckets/bkt") == (200, {"done": True})
        assert opened.quotas.of("bkt") is None
        assert await ask(admin, "GET", "/buckets") == (200, {"buckets": []})

    with_admin(tmp_path, work)


async def _never(_: Any) -> Any:
    raise AssertionError


def test_words_go_before_names_and_segments_are_never_empty() -> None:
    named, word = Route("GET", "/a/{b}", "", _never), Route("GET", "/a/b", "", _never)
    assert find([named, word], "GET", "/a/b") == (word, {})
    assert find([named, word], "GET", "/a/c") == (named, {"b": "c"})
    assert find([named, word], "GET", "/a/") == 404
    assert find([named, word], "GET", "/a/b/c") == 404
    assert find([named, word], "PUT", "/a/b") == 405
    assert operation_id(named) == "get_a_b"


def test_a_body_is_checked_in_words() -> None:
    route = Route(
        "PUT",
        "/",
        "",
        _never,
        takes={
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 9},
                "s": {"type": "string", "enum": ["a", "b"]},
                "l": {"type": "array", "items": {"type": "string", "maxLength": 2}, "maxItems": 2},
            },
            "required": ["n"],
            "additionalProperties": False,
        },
    )
    assert read_body(route, b'{"n": 9, "s": "b", "l": ["x", "yy"]}') == {"n": 9, "s": "b", "l": ["x", "yy"]}
    for body, words in (
        ({}, 'has no "n"'),
        ({"n": 0}, '"n" is below 1'),
        ({"n": 10}, "above 9"),
        ({"n": True}, "not of type integer"),
        ({"n": 1, "s": "c"}, "none of a, b"),
        ({"n": 1, "x": 1}, "there are: n, s, l"),
        ({"n": 1, "l": ["xxx"]}, r'"l"\[0\] is above 2'),
        ({"n": 1, "l": ["x"] * 3}, "above 2"),
    ):
        with pytest.raises(S3Error, match=words):
            read_body(route, json.dumps(body).encode())
