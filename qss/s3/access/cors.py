"""CORS: which pages of other origins may read what. Configuration, preflight answers, headers on other answers. Pure.

Source: "Using cross-origin resource sharing (CORS)" and PutBucketCors of the Amazon S3 documentation; the Fetch
standard for what browsers make of it. CORS gives no rights: a request that it lets through still has to be allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qss.errors import CorruptData
from qss.s3.message import Headers
from qss.s3.scalars import number_of
from qss.s3.xml import Node

RULES_MAX: Final = 100
CORS_BYTES_MAX: Final = 64 * 1024
METHODS: Final = ("GET", "PUT", "POST", "DELETE", "HEAD")
VARY: Final = ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")


@dataclass(frozen=True, slots=True)
class CorsRule:
    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()  # lower-case
    expose: tuple[str, ...] = ()
    max_age_s: int | None = None

    def allows(self, origin: str, method: str, headers: tuple[str, ...] = ()) -> bool:
        return (
            all(_is_header_text(each) for each in (origin, *headers))  # they are told again in the answer
            and any(_fits(each, origin) for each in self.origins)
            and method in self.methods
            and all(any(_fits(each, name) for each in self.headers) for name in headers)
        )

    def answer(self, origin: str) -> list[tuple[str, str]]:
        """Headers of an answer to a request that the rule allows. "*" alone is told as it is, without credentials."""
        if "*" in self.origins:
            found = [("access-control-allow-origin", "*")]
        else:
            found = [("access-control-allow-origin", origin), ("access-control-allow-credentials", "true")]
        found.append(("access-control-allow-methods", ", ".join(self.methods)))
        if self.expose:
            found.append(("access-control-expose-headers", ", ".join(self.expose)))
        if self.max_age_s is not None:
            found.append(("access-control-max-age", str(self.max_age_s)))
        return [*found, VARY]


def _fits(pattern: str, text: str) -> bool:
    """ "*", at most one, is the only wildcard; "?" is an ordinary character in an origin."""
    before, star, behind = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(before) + len(behind) and text.startswith(before) and text.endswith(behind)


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


def cors_of(root: Node) -> tuple[CorsRule, ...]:
    """From CORSConfiguration. Raises CorruptData, whose text is for the client."""
    rules = tuple(_rule(node) for node in root.all("CORSRule"))
    if not 1 <= len(rules) <= RULES_MAX:
        raise CorruptData(f"A CORS configuration has 1 to {RULES_MAX} rules")
    return rules


def _rule(node: Node) -> CorsRule:
    def texts(name: str) -> tuple[str, ...]:
        return tuple(child.text.strip() for child in node.all(name))

    origins, methods = texts("AllowedOrigin"), texts("AllowedMethod")
    if not origins or not methods:
        raise CorruptData("A CORS rule names at least one AllowedOrigin and one AllowedMethod")
    for method in methods:
        if method not in METHODS:
            raise CorruptData(f"Found unsupported HTTP method in CORS config. Unsupported method is {method}")
    headers = tuple(each.lower() for each in texts("AllowedHeader"))
    for what, values in (("AllowedOrigin", origins), ("AllowedHeader", headers)):
        for value in values:
            if value.count("*") > 1 or not value:
                raise CorruptData(f'{what} "{value}" can not have more than one wildcard.')
    expose = texts("ExposeHeader")
    if not all(_is_header_text(each) for each in (*origins, *headers, *expose)):
        raise CorruptData("A CORS rule names something that cannot stand in a header.")
    if any("*" in each for each in expose):
        raise CorruptData("ExposeHeader contains wildcard. We currently do not support wildcard for ExposeHeader.")
    age = node.find("MaxAgeSeconds")
    max_age_s = None if age is None else number_of(age.text.strip(), 9)
    if age is not None and max_age_s is None:
        raise CorruptData("MaxAgeSeconds is no number of seconds")
    return CorsRule(origins, methods, headers, expose, max_age_s)


def preflight(rules: tuple[CorsRule, ...], headers: Mapping[str, str]) -> Headers | None:
    """Headers of the answer to an OPTIONS request; None: forbidden."""
    origin = headers.get("origin", "")
    method = headers.get("access-control-request-method", "")
    asked = headers.get("access-control-request-headers", "")
    names = tuple(name.strip().lower() for name in asked.split(",") if name.strip())
    for rule in rules:
        if rule.allows(origin, method, names):
            found = rule.answer(origin)
            if names:
                found.append(("access-control-allow-headers", ", ".join(names)))
            return tuple(found)
    return None


def headers_for(rules: tuple[CorsRule, ...], origin: str, method: str) -> Headers:
    """Headers to add to the answer of an actual request from `origin`."""
    for rule in rules:
        if rule.allows(origin, method):
            return tuple(rule.answer(origin))
    return ()
