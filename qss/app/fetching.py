"""The offload process of something that is only read: brings segments and stripes from the locations, nothing else.

No courier, no roots, no repair: it writes to no location, so it can run beside the one that does. Ends with its parent.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from qss.app import wire
from qss.app.carriers import RemoteVault, vault_methods
from qss.app.identity import check_key
from qss.app.leaving import leave_on_signal, leave_with_parent
from qss.app.locations import open_nodes
from qss.app.secrecy import handed_over
from qss.app.shell import child_main, child_parser
from qss.config import Settings
from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.control.server import serve as serve_control
from qss.host import Host
from qss.host.buffers import KEPT_BYTES_LESS, keep_buffers
from qss.ids import SegmentId
from qss.offload.keys import FsKeys
from qss.offload.nodes import Nodes
from qss.offload.vault import Vault

SOCKET: Final = "offload.sock"
MANIFESTS: Final = "manifests"

log = logging.getLogger("qss.app.fetching")


class RemoteFetcher(RemoteVault):
    """What the reading process sees of this one."""

    def close(self) -> None:
        self._client.close()

    async def length_of(self, segment: SegmentId) -> int:
        """Bytes of a segment. Raises TooFewShards, Unreachable."""
        return wire.number(await self._client.call("vault.length_of", segment=segment))

    async def fetch_segment(self, segment: SegmentId, into: Path) -> None:
        """A whole segment, verified. Raises TooFewShards, Damaged, Unreachable."""
        await self._client.call("vault.fetch_segment", segment=segment, into=wire.path_to_json(into))


def remote_fetcher(folder: Path) -> RemoteFetcher:
    """The process that serves in this directory."""
    return RemoteFetcher(ControlClient(folder / SOCKET))


def reading_vault(settings: Settings, keys: FsKeys, nodes: Nodes, host: Host, folder: Path) -> Vault:
    """A vault with its own directory. Manifests are shared with the one that writes: each is replaced as a whole."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = settings.offload_dir / MANIFESTS
    if known.is_dir():
        with contextlib.suppress(FileExistsError):
            (folder / MANIFESTS).symlink_to(known)
    return Vault(nodes, keys, settings.offload, host, folder)


def fetch_methods(vault: Vault) -> Mapping[str, Method]:
    """The method table of its socket."""

    async def length_of(call: Call) -> Json:
        return (await vault.manifest_of(wire.segment_of(call.params["segment"]))).segment.length

    async def fetch_segment(call: Call) -> Json:
        await vault.fetch_segment(wire.segment_of(call.params["segment"]), wire.path_of(call.params["into"]))

    return {**vault_methods(vault), "vault.length_of": length_of, "vault.fetch_segment": fetch_segment}


async def run_fetching(settings: Settings, keys: FsKeys, folder: Path) -> None:
    """Until the parent goes away, or a signal comes."""
    host = Host()
    async with open_nodes(settings, host) as nodes:
        vault = reading_vault(settings, keys, nodes, host, folder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_with_parent, nursery.cancel_scope)
            nursery.start_soon(leave_on_signal, nursery.cancel_scope)
            await nursery.start(serve_control, folder / SOCKET, fetch_methods(vault))


def child(settings: Settings, folder: Path, log_file: Path | None) -> tuple[list[str], bytes]:
    """What starts it, and what it is told first."""
    key, first_words = handed_over(settings)
    made = [sys.executable, "-m", "qss.app.fetching", "--config", str(settings.source), "--folder", str(folder)]
    return [*made, *key, *(["--log-file", str(log_file)] if log_file else [])], first_words


def main(arguments: list[str] | None = None) -> int:
    parser = child_parser("qss-fetching")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args(arguments)

    def live(settings: Settings) -> None:
        keep_buffers(KEPT_BYTES_LESS)
        trio.run(run_fetching, settings, FsKeys.derive(check_key(settings)), given.folder)

    return child_main(given, "fetching", live)


if __name__ == "__main__":
    sys.exit(main())
