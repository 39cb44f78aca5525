"""The nodes of the demo find ports."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from qss.app import demo_nodes
from qss.app.demo_nodes import PORTS_TRIED_MAX, DemoNodes, start_nodes
from qss.errors import Refused


def test_a_node_whose_port_somebody_has_taken_meanwhile_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def start(_nodes: DemoNodes, _name: str, port: int) -> None:
        """The first time somebody else was quicker, and the node has ended."""
        asked.append(port)
        held.enter_context(socket.create_server(("127.0.0.1", port)))

    monkeypatch.setattr(demo_nodes, "_start", start)
    monkeypatch.setattr(DemoNodes, "pid", lambda *_: 1 if len(asked) > 1 else None)
    with ExitStack() as held:
        urls = start_nodes(DemoNodes(tmp_path, 1))
    assert len(set(asked)) == 2
    assert urls == {"trove-1": f"http://127.0.0.1:{asked[1]}"}


def test_a_node_that_never_starts_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(demo_nodes, "_start", lambda _nodes, name, _port: asked.append(name))
    monkeypatch.setattr(DemoNodes, "pid", lambda *_: None)
    with pytest.raises(Refused, match=r"trove-1 does not start; .*trove-1\.log says why"):
        start_nodes(DemoNodes(tmp_path, 1))
    assert asked == ["trove-1"] * PORTS_TRIED_MAX
