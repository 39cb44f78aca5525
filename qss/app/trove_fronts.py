"""The front doors of a node, put together: which application answers where, over one node and one S3 service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from qss.s3.access.context import Tags
from qss.s3.access.gate import Gate
from qss.s3.rsgi import RsgiApp, s3_app
from qss.s3.server import S3Service, ServiceOptions
from qss.s3.sigv4 import Verifier
from qss.trove.admin import HEADERS, Admin, AdminApp
from qss.trove.admin_buckets import BucketRoutes
from qss.trove.admin_shares import ShareRoutes
from qss.trove.admin_upkeep import UpkeepRoutes
from qss.trove.admin_users import UserRoutes
from qss.trove.console import Behind, ConsoleApp
from qss.trove.console_shares import OwnShares
from qss.trove.credentials import Credentials
from qss.trove.files import Doors, Files, FilesApp
from qss.trove.health import Health
from qss.trove.node import Node
from qss.trove.routes import JSON
from qss.trove.sessions import Sessions
from qss.trove.users import Users
from qss.trove.watching import Watching

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

FRONTS: Final[Mapping[str, str]] = {"s3": "S3", "files": "file API", "admin": "admin API", "console": "console"}
"""Each front door's name in options and logs, and for people."""


class Fronts:
    """All applications of a node. `listening` is filled in as they begin to listen: name → scheme://host:port."""

    def __init__(
        self,
        node: Node,
        credentials: Credentials,
        watching: Watching,
        public_url: str | None = None,
        service: ServiceOptions | None = None,
    ) -> None:
        """`public_url`: how people reach the file API from outside, for links to shares."""
        self.health = Health()
        self._public_url = public_url
        self.listening: dict[str, str] = {}
        self._host = host = node.options.host
        self._token = credentials.admin_token

        self._users = users = Users(credentials, node.ledger, host.clock, host.entropy)

        async def tags_of(bucket: str, key: str, version_id: str | None) -> Tags:
            return (await node.store.head(bucket, key, version_id)).attributes.tags

        gate = Gate(users, node.store, tags_of, host.clock.now_ns)
        self._service = S3Service(
            node.store,
            Verifier(users.secret_of),
            host.clock,
            host.entropy.token,
            options=replace(service or ServiceOptions(), day_ns=int(node.options.lifecycle_day_s * 1e9)),
            authorize=gate,
        )
        self._shares = ShareRoutes(node, self._files_url)
        routes = [
            *BucketRoutes(node).routes,
            *self._shares.routes,
            *UserRoutes(users).routes,
            *UpkeepRoutes(node).routes,
            *watching.routes,
        ]
        self.admin = Admin(node, credentials.admin_token, routes, self.health, [watching.metrics])
        files = Files(self._service, node.store, credentials.access_key)
        doors = Doors(node.tokens, node.shares, self.admin.admits, credentials.access_key)
        self._files = FilesApp(files, doors, self.health)

    def apps(self) -> dict[str, RsgiApp]:
        """By the names of FRONTS."""
        return {
            "s3": _with_health(s3_app(self._service), self.health),
            "files": self._files,
            "admin": AdminApp(self.admin),
            "console": self._console(),
        }

    def _console(self) -> ConsoleApp:
        shares = OwnShares(self._shares, self._service, self._users)
        behind = Behind(self.admin, self._token, self._service, self._users, shares, self._files, self.health)
        return ConsoleApp(behind, Sessions(self._host.clock, self._host.entropy.token))

    def _files_url(self) -> str:
        return (self._public_url or self.listening.get("files", "")).rstrip("/")


def _with_health(app: RsgiApp, health: Health) -> RsgiApp:
    """The S3 front has no room for other paths than objects', but for /-/."""

    async def run(scope: Scope, protocol: HttpProtocol) -> None:
        if scope.path.startswith("/-/"):
            found = health.answer(scope.method, scope.path)
            if found is not None:
                protocol.exchange.operation = "Health"
                protocol.response_bytes(found.status, [("content-type", JSON), *HEADERS], found.body)
                return
        await app(scope, protocol)

    return run
