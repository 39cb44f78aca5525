"""Users and keys: durable, private, told once; what the admin API says about them; and a node that lets them in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from qss.errors import Refused
from qss.host import SystemClock, SystemEntropy
from qss.s3.access.policy import Ask, Principal, Verdict
from qss.s3.errors import Code, S3Error
from qss.trove.admin import Admin
from qss.trove.admin_users import UserRoutes
from qss.trove.credentials import Credentials
from qss.trove.ledger import LEDGER, Ledger
from qss.trove.testing import TroveServer
from qss.trove.users import KEYS_MAX, KIND, Users
from tests.harness.trove_node import node

ROOT = Credentials("root-key", "root-secret-of-tests", "token")
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
)


def opened(directory: Path) -> tuple[Users, Ledger]:
    ledger = Ledger(directory)
    return Users(ROOT, ledger, SystemClock(), SystemEntropy()), ledger


def with_users(directory: Path, work: Callable[[Users], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        users, ledger = opened(directory)
        try:
            await work(users)
        finally:
            ledger.close()

    asyncio.run(all_of_it())


async def refused(code: Code, call: Awaitable[Any]) -> None:
    with pytest.raises(S3Error) as caught:
        await call
    assert caught.value.code is code


def test_users_keys_and_policies_outlive_the_process(tmp_path: Path) -> None:
    made: list[Any] = []

    async def first(users: Users) -> None:
        await users.create("alice")
        made.extend([await users.create_key("alice"), await users.create_key("alice")])
        await users.enable_key("alice", made[1].access_key, enabled=False)
        await users.put_policy("alice", "read", POLICY)

    async def second(users: Users) -> None:
        assert users.secret_of(made[0].access_key) == made[0].secret_key
        assert users.secret_of(made[1].access_key) is None, "disabled"
        assert users.principal_of(made[1].access_key) is None
        alice = users.principal_of(made[0].access_key)
        assert alice is not None
        assert (alice.name, alice.is_root) == ("alice", False)
        ask = Ask(alice, "s3:GetObject", "arn:aws:s3:::b/k", {})
        assert [policy.decide(ask) for policy in users.policies_of(alice)] == [Verdict.ALLOW]
        await users.enable_key("alice", made[1].access_key, enabled=True)
        assert users.secret_of(made[1].access_key) == made[1].secret_key
        await users.delete_key("alice", made[0].access_key)
        assert users.secret_of(made[0].access_key) is None
        await users.delete_policy("alice", "read")
        assert users.policies_of(alice) == ()
        await users.delete("alice")
        assert users.secret_of(made[1].access_key) is None
        assert users.all() == []

    with_users(tmp_path, first)
    assert (tmp_path / LEDGER).stat().st_mode & 0o777 == 0o600
    with_users(tmp_path, second)
    with_users(tmp_path, lambda users: refused(Code.NO_SUCH_ENTITY, users.create_key("alice")))


def test_root_is_root(tmp_path: Path) -> None:
    async def work(users: Users) -> None:
        assert users.secret_of("root-key") == "root-secret-of-tests"
        assert users.principal_of("root-key") == Principal("")
        assert users.principal_of("unknown") is None
        assert users.secret_of("unknown") is None

    with_users(tmp_path, work)


def test_what_is_refused(tmp_path: Path) -> None:
    async def work(users: Users) -> None:
        for name in ("", "a b", "a/b", "*", "é", "x" * 65, "a\n"):
            await refused(Code.INVALID_ARGUMENT, users.create(name))
        await users.create("alice")
        await refused(Code.ENTITY_EXISTS, users.create("alice"))
        await refused(Code.MALFORMED_POLICY, users.put_policy("alice", "p", "{}"))
        await refused(Code.NO_SUCH_ENTITY, users.put_policy("bob", "p", POLICY))
        await refused(Code.NO_SUCH_ENTITY, users.delete_policy("alice", "p"))
        await refused(Code.NO_SUCH_ENTITY, users.delete_key("alice", "root-key"))
        for _ in range(KEYS_MAX):
            await users.create_key("alice")
        await refused(Code.LIMIT_EXCEEDED, users.create_key("alice"))
        assert len({key.access_key for key in users.get("alice").keys}) == KEYS_MAX

    with_users(tmp_path, work)


def test_a_user_of_the_same_name_is_another_user(tmp_path: Path) -> None:
    async def work(users: Users) -> None:
        first = await users.create("alice")
        await users.delete("alice")
        assert (await users.create("alice")).user_id != first.user_id

    with_users(tmp_path, work)


def test_a_damaged_entry_is_refused_at_the_start(tmp_path: Path) -> None:
    async def spoil() -> None:
        ledger = Ledger(tmp_path)
        await ledger.put(KIND, "alice", {"id": "x", "created": 1, "keys": [], "policies": {"p": "{}"}})
        ledger.close()

    asyncio.run(spoil())
    with pytest.raises(Refused):
        opened(tmp_path)


def test_the_admin_api_tells_a_secret_once(tmp_path: Path) -> None:
    async def work() -> None:
        one = node(tmp_path / "n")
        users = Users(ROOT, one.ledger, SystemClock(), SystemEntropy())
        admin = Admin(one, "token", UserRoutes(users).routes)
        said: list[str] = []

        async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            data = b"" if body is None else json.dumps(body).encode()
            status, _, content = await admin.answer(method, path, "Bearer token", data)
            said.append(content.decode())
            return status, json.loads(content)

        try:
            assert (await ask("POST", "/users", {"name": "alice"}))[0] == 201
            status, key = await ask("POST", "/users/alice/keys")
            assert status == 201
            assert users.secret_of(key["access_key"]) == key["secret_key"]
            said.clear()
            assert (await ask("PUT", f"/users/alice/keys/{key['access_key']}", {"enabled": False}))[0] == 200
            assert (await ask("PUT", "/users/alice/policies/read", json.loads(POLICY)))[0] == 200
            assert await ask("GET", "/users/alice/policies/read") == (200, json.loads(POLICY))
            status, listed = await ask("GET", "/users")
            assert listed["users"][0]["keys"] == [
                {"access_key": key["access_key"], "enabled": False, "created": listed["users"][0]["keys"][0]["created"]}
            ]
            assert (await ask("GET", "/users/alice"))[1] == listed["users"][0]
            assert listed["users"][0]["policies"] == ["read"]
            assert not any(key["secret_key"] in text for text in said)
            status, error = await ask("PUT", "/users/alice/policies/bad", {"Statement": []})
            assert (status, error["code"]) == (400, "MalformedPolicy")
            for method, path, wanted in (
                ("DELETE", "/users/alice/policies/read", 200),
                ("DELETE", "/users/alice/policies/read", 404),
                ("GET", "/users/alice/policies/read", 404),
                ("DELETE", f"/users/alice/keys/{key['access_key']}", 200),
                ("DELETE", f"/users/alice/keys/{key['access_key']}", 404),
                ("DELETE", "/users/alice", 200),
                ("GET", "/users/alice", 404),
            ):
                assert (await ask(method, path))[0] == wanted, path
        finally:
            await one.aclose()

    asyncio.run(work())


@pytest.mark.live
def test_a_user_of_a_running_node(tmp_path: Path) -> None:
    """Through the admin API and the S3 API of a real process, over a SIGKILL."""
    import httpx
    from botocore.exceptions import ClientError

    from tests.harness.boto import boto_client
    from tests.harness.waiting import WAIT_S_MAX

    with TroveServer(tmp_path / "node") as trove:
        root = boto_client(trove.endpoint, trove.access_key, trove.secret_key)
        root.create_bucket(Bucket="bucket")
        root.put_object(Bucket="bucket", Key="k", Body=b"x")
        bearer = {"authorization": f"Bearer {trove.admin_token}"}
        with httpx.Client(base_url=trove.admin, headers=bearer, timeout=WAIT_S_MAX) as admin:
            assert admin.post("/users", json={"name": "alice"}).status_code == 201
            key = admin.post("/users/alice/keys").json()
            alice = boto_client(trove.endpoint, key["access_key"], key["secret_key"])
            with pytest.raises(ClientError, match="AccessDenied"):
                alice.get_object(Bucket="bucket", Key="k")
            assert admin.put("/users/alice/policies/read", json=json.loads(POLICY)).status_code == 200
            assert alice.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x"
            trove.kill()
            trove.start()
            assert alice.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x"
            with pytest.raises(ClientError, match="AccessDenied"):
                alice.put_object(Bucket="bucket", Key="k", Body=b"y")
            assert admin.put(f"/users/alice/keys/{key['access_key']}", json={"enabled": False}).status_code == 200
            with pytest.raises(ClientError, match="InvalidAccessKeyId"):
                alice.get_object(Bucket="bucket", Key="k")
        statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/*"}
        public = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        with pytest.raises(ClientError, match="BlockPublicPolicy"):
            root.put_bucket_policy(Bucket="bucket", Policy=public)
        root.delete_public_access_block(Bucket="bucket")
        root.put_bucket_policy(Bucket="bucket", Policy=public)
        rule = {"AllowedOrigins": ["https://a.example"], "AllowedMethods": ["GET"]}
        root.put_bucket_cors(Bucket="bucket", CORSConfiguration={"CORSRules": [rule]})
        trove.kill()
        trove.start()
        assert root.get_bucket_policy_status(Bucket="bucket")["PolicyStatus"]["IsPublic"] is True
        assert root.get_bucket_cors(Bucket="bucket")["CORSRules"] == [rule]
        got = httpx.get(f"{trove.endpoint}/bucket/k", headers={"origin": "https://a.example"})
        assert (got.content, got.headers["access-control-allow-origin"]) == (b"x", "https://a.example")
        assert httpx.put(f"{trove.endpoint}/bucket/k", content=b"y").status_code == 403
        root.delete_bucket_policy(Bucket="bucket")
        assert httpx.get(f"{trove.endpoint}/bucket/k").status_code == 403
