"""Routes → OpenAPI 3.1. Pure. Source: spec.openapis.org/oas/v3.1.1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from qss.trove.routes import JSON, Route

VERSION: Final = "3.1.1"
_ERROR: Final = {"$ref": "#/components/schemas/Error"}


def describe(routes: Sequence[Route], title: str, version: str) -> dict[str, Any]:
    """The description of an API whose requests carry a bearer token."""
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(routes, key=lambda each: (each.path, each.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": VERSION,
        "info": {"title": title, "version": version},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
                    "required": ["error"],
                }
            },
        },
    }


def operation_id(route: Route) -> str:
    """ "PUT /buckets/{bucket}/quota" → "put_buckets_bucket_quota": unique, since a route is."""
    return f"{route.method.lower()}_{re.sub('[^a-z0-9]+', '_', route.path.lower()).strip('_')}"


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.names
    ] + [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query.items()
    ]
    schema = route.gives if route.kind == JSON else {"type": "string"}
    answers: dict[str, Any] = {
        str(route.status): {"description": route.summary, "content": {route.kind: {"schema": schema}}}
    }
    failures = {400, 500, *route.errors} | (set() if route.public else {401})
    for status in sorted(failures):
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": _ERROR}}}
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": answers,
    }
    if route.takes is not None:
        operation["requestBody"] = {"content": {JSON: {"schema": route.takes}}, "required": bool(_required(route))}
    if route.public:
        operation["security"] = []
    return operation


def _required(route: Route) -> Sequence[str]:
    return list((route.takes or {}).get("required", ()))
