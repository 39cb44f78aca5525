"""Routes of the admin API for users, their access keys and their policies."""

from __future__ import annotations

import json
from typing import Any, Final

from qss.s3.dates import iso
from qss.s3.errors import Code, S3Error
from qss.trove.routes import ANY_OBJECT, DONE, Answer, Asked, Route, Schema, answer, body_of, done
from qss.trove.users import AccessKey, User, Users

_TEXT: Final[Schema] = {"type": "string"}
_KEY: Final[Schema] = {
    "type": "object",
    "properties": {"access_key": _TEXT, "enabled": {"type": "boolean"}, "created": _TEXT},
    "required": ["access_key", "enabled", "created"],
}
_NEW_KEY: Final[Schema] = {
    "type": "object",
    "properties": {"access_key": _TEXT, "secret_key": _TEXT},
    "required": ["access_key", "secret_key"],
}
_USER: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "id": _TEXT,
        "arn": _TEXT,
        "created": {"type": "string", "format": "date-time"},
        "keys": {"type": "array", "items": _KEY},
        "policies": {"type": "array", "items": _TEXT},
    },
    "required": ["name", "id", "arn", "created", "keys", "policies"],
}


class UserRoutes:
    """Made for one node."""

    def __init__(self, users: Users) -> None:
        self._users = users

    @property
    def routes(self) -> list[Route]:
        one = "/users/{user}"
        key, policy = f"{one}/keys/{{key}}", f"{one}/policies/{{policy}}"
        listing = {"type": "object", "properties": {"users": {"type": "array", "items": _USER}}}
        name = body_of({"name": {"type": "string", "minLength": 1, "maxLength": 64}}, "name")
        switch = body_of({"enabled": {"type": "boolean"}}, "enabled")
        return [
            Route("GET", "/users", "All users but root", self._list, gives=listing),
            Route("POST", "/users", "Make a user", self._make, takes=name, gives=_USER, status=201, errors=(409,)),
            Route("GET", one, "One user", self._get, gives=_USER, errors=(404,)),
            Route("DELETE", one, "Remove a user, its keys and policies", self._remove, gives=DONE, errors=(404,)),
            Route(
                "POST",
                f"{one}/keys",
                "Make an access key; its secret is told here and never again",
                self._make_key,
                gives=_NEW_KEY,
                status=201,
                errors=(404, 409),
            ),
            Route("PUT", key, "Enable or disable a key", self._switch_key, takes=switch, gives=DONE, errors=(404,)),
            Route("DELETE", key, "Remove a key", self._remove_key, gives=DONE, errors=(404,)),
            Route("GET", policy, "A policy of a user", self._policy, errors=(404,)),
            Route(
                "PUT",
                policy,
                "Give a user a policy, in the language of IAM",
                self._put_policy,
                takes=ANY_OBJECT,
                gives=DONE,
                errors=(404, 409),
            ),
            Route("DELETE", policy, "Take a policy away", self._remove_policy, gives=DONE, errors=(404,)),
        ]

    async def _list(self, _: Asked) -> Answer:
        return answer({"users": [_value(user) for user in self._users.all()]})

    async def _make(self, asked: Asked) -> Answer:
        return answer(_value(await self._users.create(asked.body["name"])), 201)

    async def _get(self, asked: Asked) -> Answer:
        return answer(_value(self._users.get(asked.args["user"])))

    async def _remove(self, asked: Asked) -> Answer:
        await self._users.delete(asked.args["user"])
        return done()

    async def _make_key(self, asked: Asked) -> Answer:
        made = await self._users.create_key(asked.args["user"])
        return answer({"access_key": made.access_key, "secret_key": made.secret_key}, 201)

    async def _switch_key(self, asked: Asked) -> Answer:
        await self._users.enable_key(asked.args["user"], asked.args["key"], enabled=asked.body["enabled"])
        return done()

    async def _remove_key(self, asked: Asked) -> Answer:
        await self._users.delete_key(asked.args["user"], asked.args["key"])
        return done()

    async def _policy(self, asked: Asked) -> Answer:
        user = self._users.get(asked.args["user"])
        text = user.policies.get(asked.args["policy"])
        if text is None:
            raise S3Error(Code.NO_SUCH_ENTITY, f"{user.name} has no such policy.")
        return answer(json.loads(text))

    async def _put_policy(self, asked: Asked) -> Answer:
        await self._users.put_policy(asked.args["user"], asked.args["policy"], json.dumps(dict(asked.body)))
        return done()

    async def _remove_policy(self, asked: Asked) -> Answer:
        await self._users.delete_policy(asked.args["user"], asked.args["policy"])
        return done()


def _key_value(key: AccessKey) -> dict[str, Any]:
    return {"access_key": key.access_key, "enabled": key.enabled, "created": iso(key.created_ns)}


def _value(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "id": user.user_id,
        "arn": user.arn,
        "created": iso(user.created_ns),
        "keys": [_key_value(key) for key in user.keys],
        "policies": sorted(user.policies),
    }
