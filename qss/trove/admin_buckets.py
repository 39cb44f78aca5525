"""Routes of the admin API for buckets, what they hold and what they may hold."""

from __future__ import annotations

from typing import Any, Final

from qss.s3.backend import Bucket, ListPage, ListQuery
from qss.s3.dates import iso
from qss.s3.errors import Code, S3Error
from qss.s3.parse import check_bucket_name
from qss.s3.scalars import number_of
from qss.trove.node import Node
from qss.trove.quotas import Quota
from qss.trove.routes import DONE, Answer, Asked, Route, Schema, answer, body_of, done
from qss.trove.usage import usage_of

REGION: Final = "us-east-1"
PAGE_MAX: Final = 1000
_LIMIT: Final[Schema] = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**62}
_QUOTA: Final[Schema] = body_of({"bytes_max": _LIMIT, "objects_max": _LIMIT})
_BUCKET: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "created": {"type": "string", "format": "date-time"},
        "objects": {"type": "integer"},
        "bytes": {"type": "integer"},
        "quota": {**_QUOTA, "type": ["object", "null"]},
    },
    "required": ["name", "created", "objects", "bytes", "quota"],
}
_LISTING: Final[Schema] = {
    "type": "object",
    "properties": {
        "objects": {"type": "array", "items": {"type": "object"}},
        "prefixes": {"type": "array", "items": {"type": "string"}},
        "next_after": {"type": ["string", "null"]},
    },
    "required": ["objects", "prefixes", "next_after"],
}
LIST_QUERY: Final = {
    "prefix": "only keys that start with this",
    "delimiter": "keys with this behind the prefix are told as one prefix",
    "after": "only keys greater than this: `next_after` of the page before",
    "limit": f"keys and prefixes of one page, at most {PAGE_MAX}",
}


def list_query(bucket: str, asked: Asked) -> ListQuery:
    """Raises S3Error INVALID_ARGUMENT for a limit that is none."""
    limit = number_of(asked.query.get("limit", str(PAGE_MAX)), 9)
    if limit is None:
        raise S3Error(Code.INVALID_ARGUMENT, "limit is not a number")
    query = asked.query
    return ListQuery(
        bucket, query.get("prefix", ""), query.get("delimiter", ""), query.get("after", ""), min(limit, PAGE_MAX)
    )


def page_value(page: ListPage) -> dict[str, Any]:
    """A page of a bucket's objects as JSON."""
    objects = [
        {"key": each.key, "size": each.size, "etag": each.etag, "modified": iso(each.modified_ns)}
        for each in page.objects
    ]
    return {"objects": objects, "prefixes": list(page.prefixes), "next_after": page.next_after}


class BucketRoutes:
    """Made for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def routes(self) -> list[Route]:
        one = "/buckets/{bucket}"
        listing = {"type": "object", "properties": {"buckets": {"type": "array", "items": _BUCKET}}}
        name = body_of({"name": {"type": "string", "minLength": 3, "maxLength": 63}}, "name")
        return [
            Route("GET", "/buckets", "All buckets, what they hold and may hold", self._list, gives=listing),
            Route(
                "POST", "/buckets", "Make a bucket", self._make, takes=name, gives=_BUCKET, status=201, errors=(409,)
            ),
            Route("GET", one, "One bucket", self._get, gives=_BUCKET, errors=(404,)),
            Route("DELETE", one, "Remove an empty bucket", self._remove, gives=DONE, errors=(404, 409)),
            Route("GET", f"{one}/quota", "What a bucket may hold", self._quota, gives=_QUOTA, errors=(404,)),
            Route(
                "PUT",
                f"{one}/quota",
                "Limit a bucket; null or nothing: no limit",
                self._limit,
                takes=_QUOTA,
                gives=_QUOTA,
                errors=(404, 503),
            ),
            Route(
                "GET",
                f"{one}/objects",
                "A page of a bucket's objects",
                self._objects,
                gives=_LISTING,
                query=LIST_QUERY,
                errors=(404,),
            ),
        ]

    def _value(self, bucket: Bucket) -> dict[str, Any]:
        usage = usage_of(self._node.engine.index, bucket.name)
        quota = self._node.quotas.of(bucket.name)
        return {
            "name": bucket.name,
            "created": iso(bucket.created_ns),
            "objects": usage.objects,
            "bytes": usage.bytes,
            "quota": None if quota is None else _quota_value(quota),
        }

    async def _list(self, _: Asked) -> Answer:
        return answer({"buckets": [self._value(each) for each in await self._node.store.list_buckets()]})

    async def _make(self, asked: Asked) -> Answer:
        name = asked.body["name"]
        check_bucket_name(name)
        await self._node.store.create_bucket(name, REGION)
        return answer(self._value(await self._node.store.head_bucket(name)), 201)

    async def _get(self, asked: Asked) -> Answer:
        return answer(self._value(await self._node.store.head_bucket(asked.args["bucket"])))

    async def _remove(self, asked: Asked) -> Answer:
        name = asked.args["bucket"]
        await self._node.store.delete_bucket(name)
        await self._node.quotas.set(name, None)
        return done()

    async def _quota(self, asked: Asked) -> Answer:
        bucket = await self._node.store.head_bucket(asked.args["bucket"])
        return answer(_quota_value(self._node.quotas.of(bucket.name) or Quota()))

    async def _limit(self, asked: Asked) -> Answer:
        bucket = await self._node.store.head_bucket(asked.args["bucket"])
        quota = Quota(asked.body.get("bytes_max"), asked.body.get("objects_max"))
        await self._node.quotas.set(bucket.name, quota)
        return answer(_quota_value(quota))

    async def _objects(self, asked: Asked) -> Answer:
        return answer(page_value(await self._node.store.list_objects(list_query(asked.args["bucket"], asked))))


def _quota_value(quota: Quota) -> dict[str, int | None]:
    return {"bytes_max": quota.bytes_max, "objects_max": quota.objects_max}
