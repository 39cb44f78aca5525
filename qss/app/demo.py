"""The demo that scripts/run starts: Trove nodes as processes on loopback, one file system over them, mounted.

Everything is in one directory: `nodes/N` (node data), `state` (cache, index, key), `qss.toml`, `credentials`, `run`
(pid files, sockets), `log`, `mnt`. Starting is idempotent: what runs is left alone, what does not is started.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qss.app import mountpoint
from qss.app.demo_nodes import DemoNodes, start_nodes, stop_nodes
from qss.app.identity import unlocked
from qss.app.running import is_alive, lock_file, pid_in, wait_gone
from qss.app.starting import Start, in_background
from qss.config import Settings, environment, load
from qss.errors import QssError, Refused, Retryable

STOP_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Demo:
    """Where everything of one demo is."""

    root: Path
    k: int
    m: int
    nodes: int

    @property
    def config(self) -> Path:
        return self.root / "qss.toml"

    @property
    def mnt(self) -> Path:
        return self.root / "mnt"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def settings(self) -> Settings:
        return load(self.config, environment())


def start(demo: Demo) -> None:
    """Bring up whatever of the demo is not running. Returns when the file system is mounted."""
    for folder in (demo.root, demo.run, demo.root / "log", demo.root / "nodes"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _exclusive(demo):
        _start(demo)


@contextlib.contextmanager
def _exclusive(demo: Demo) -> Iterator[None]:
    """One start or stop at a time."""
    with lock_file(demo.run / "demo.lock", f"{demo.root} is being started or stopped by another process"):
        yield


def _start(demo: Demo) -> None:
    nodes = start_nodes(DemoNodes(demo.root, demo.nodes))
    if demo.config.exists():
        _follow_ports(demo.config, nodes)
    else:
        _create(demo, nodes)
    mount_pid = pid_in(demo.run / "mount.pid")
    if mount_pid is None or not is_alive(mount_pid) or mountpoint.mounted_type(demo.mnt) is None:
        start = Start(unlocked(demo.settings()), demo.mnt)
        in_background(start, environment(), lambda said: print(f"scripts/run: {said}", file=sys.stderr))


def _create(demo: Demo, urls: dict[str, str]) -> None:
    from qss.app.create import Plan, create

    plan = Plan(
        config=demo.config,
        locations=tuple(
            f"{url}/qss?name={name}&access_key=demo&secret_key_file={demo.root / 'credentials'}&label.node={name}"
            for name, url in urls.items()
        ),
        k=demo.k,
        m=demo.m,
        state=demo.root / "state",
        key_file=None,
        mountpoint=demo.mnt,
        folder=demo.root,
        extra={
            "filesystem": {"run": "run"},
            "log": {"file": "log/qss.log"},
            "cache": {"seal_after": "10s", "fetch_deadline": "15s"},
        },
    )
    create(plan, environment())


def _follow_ports(config: Path, urls: dict[str, str]) -> None:
    """A port that somebody else took in the meantime was exchanged for another: say so in the configuration."""
    from qss.app.running import write_whole

    settings = load(config, environment())
    text = fresh = config.read_text(encoding="utf-8")
    for location in settings.locations:
        url = urls.get(location.name)
        if url and url != location.endpoint:
            fresh = fresh.replace(f'"{location.endpoint}/', f'"{url}/')
    if fresh != text:
        write_whole(config, fresh, 0o600)


def stop(demo: Demo) -> None:
    """Unmount, then stop the nodes; what is not running is passed over."""
    if not demo.run.is_dir():
        return
    with _exclusive(demo):
        if demo.config.exists():
            _stop_mount(demo)
        stop_nodes(DemoNodes(demo.root, demo.nodes))


def _stop_mount(demo: Demo) -> None:
    from qss.app.talk import call_mount

    settings = demo.settings()
    pid = pid_in(demo.run / "mount.pid")
    if pid is not None and is_alive(pid):
        try:
            left = call_mount(settings, "unmount", lazy=True, drain_s=settings.mount.drain_s)
            if left["at_risk_bytes"]:
                print(f"{left['at_risk_bytes']} bytes are offloaded after the next start")
        except Retryable:
            pass
        if not wait_gone(pid, STOP_S_MAX):
            raise Refused(f"the mount process {pid} does not end; {demo.root}/log/qss.log says why")
    kind = mountpoint.mounted_type(demo.mnt)
    if kind is not None and kind.startswith("fuse") and mountpoint.is_dead(demo.mnt):
        mountpoint.unmount(demo.mnt, lazy=True)


def explain(demo: Demo, took_s: float, foreground: bool) -> None:
    qssctl = Path(sys.executable).parent / "qssctl"
    command = f"{_short(qssctl)} --config {_short(demo.config)}"
    mnt, run = _short(demo.mnt), _short(demo.run)
    end = "Ctrl-C stops it" if foreground else f"scripts/run --stop --dir {_short(demo.root)}  stops it"
    print(
        f"""
Mounted on {mnt} after {took_s:.1f} s: {demo.nodes} Trove nodes, any {demo.k} of {demo.k + demo.m} shards give all back.

Try:
  cp -a /usr/share/doc {mnt}/
  {command} status
  {command} sync                   # until everything is safe at the nodes
  {command} retention run --all    # drop the local copies
  kill -9 $(cat {run}/trove-2.pid) $(cat {run}/trove-5.pid)
  diff -r --no-dereference /usr/share/doc {mnt}/doc    # no difference

The key is {_short(demo.root / "state" / "key")}. {end}; run again, it brings the same data back.""",
        flush=True,
    )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _wait_for_a_signal() -> None:
    signal.sigwait({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def _parse(arguments: list[str] | None) -> tuple[Demo, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="scripts/run", description="A demo of QSS Quantum Storage on this machine.")
    parser.add_argument("--dir", type=Path, default=Path("demo"), metavar="DIR", help="everything is in it [./demo]")
    parser.add_argument("--k", type=int, help="nodes that suffice to read [4]")
    parser.add_argument("--m", type=int, help="nodes that may be lost [2]")
    parser.add_argument("--nodes", type=int, help="Trove nodes [k+m]")
    parser.add_argument("--detach", action="store_true", help="return when it is mounted")
    parser.add_argument("--stop", action="store_true", help="stop it")
    options = parser.parse_args(arguments)
    root = options.dir.absolute()
    k, m, nodes = 4 if options.k is None else options.k, 2 if options.m is None else options.m, options.nodes
    return Demo(root, k, m, k + m if nodes is None else nodes), options


def _as_it_was_made(demo: Demo, options: argparse.Namespace) -> Demo:
    """A demo that exists keeps its code and its nodes. Raises Refused when others are asked for, or cannot be."""
    if not demo.config.exists():
        if demo.k < 1 or demo.m < 0 or demo.nodes < demo.k + demo.m:
            raise Refused(f"k={demo.k} and m={demo.m} need at least {demo.k + demo.m} nodes, and k at least 1")
        return demo
    settings = demo.settings()
    made = Demo(demo.root, settings.offload.k, settings.offload.m, len(settings.locations))
    asked = {"--k": (options.k, made.k), "--m": (options.m, made.m), "--nodes": (options.nodes, made.nodes)}
    for name, (wanted, there) in asked.items():
        if wanted is not None and wanted != there:
            raise Refused(f"{demo.root} was made with {name} {there}: choose another --dir for {name} {wanted}")
    return made


def main(arguments: list[str] | None = None) -> int:
    began = time.monotonic()
    demo, options = _parse(arguments)
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    try:
        demo = _as_it_was_made(demo, options)
        if options.stop:
            stop(demo)
            return 0
        start(demo)
        explain(demo, time.monotonic() - began, foreground=not options.detach)
        if not options.detach:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            _wait_for_a_signal()
            print("\nStopping …", flush=True)
            stop(demo)
    except QssError as error:
        from qss.app.exits import exit_of

        print(f"scripts/run: {error}", file=sys.stderr)
        return exit_of(error)
    except KeyboardInterrupt:
        stop(demo)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
