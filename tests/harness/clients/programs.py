"""S3 clients people use, each behind the same few verbs, with its default settings wherever it lets us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.harness.clients import sdk as sdk_program

REGION = "us-east-1"
COMMAND_S_MAX = 120
INSTALLED = Path(sys.prefix, "clients", "bin")
"""scripts/setup --test puts the clients of the Python index there: some of them cannot live with our boto3."""


@dataclass(frozen=True)
class Server:
    """Where to go and as whom; `ca` is the file of the authority to trust, for TLS."""

    endpoint: str
    access_key: str
    secret_key: str
    ca: Path | None = None

    @property
    def host(self) -> str:
        return self.endpoint.split("://")[1]


class Program(Protocol):
    """Trees go to the root of a bucket. Each verb raises when the program says that it failed."""

    def make_bucket(self, bucket: str) -> None: ...
    def sync(self, tree: Path, bucket: str) -> None: ...
    def fetch(self, bucket: str, into: Path) -> None: ...
    def keys(self, bucket: str) -> set[str]: ...
    def put(self, bucket: str, key: str, file: Path) -> None: ...
    def get(self, bucket: str, key: str, file: Path) -> None: ...
    def copy(self, bucket: str, key: str, to: str) -> None: ...
    def remove(self, bucket: str) -> None:
        """All objects, and the bucket if it makes buckets."""
        ...

    def close(self) -> None: ...


def environment(server: Server, home: Path) -> dict[str, str]:
    """Of a program that has this home folder and nothing of ours but what is needed."""
    found = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    found |= {"HOME": str(home), "LC_ALL": "C.UTF-8"}
    if server.ca is not None:
        # Programs in Go, minio, obstore · libcurl (s3fs-fuse). AWS_CA_BUNDLE would end rclone 1.60.
        found |= dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(server.ca))
    return found


def botocore_trust(server: Server) -> dict[str, str]:
    """For aws, boto3 and s3fs."""
    return {"AWS_CA_BUNDLE": str(server.ca)} if server.ca else {}


def run(argv: list[str | Path], env: dict[str, str]) -> str:
    """Standard output; an AssertionError tells what a program that failed said."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    assert done.returncode == 0, f"{argv}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class _Cli:
    def __init__(self, server: Server, home: Path, binary: str | Path) -> None:
        self._server = server
        self._home = home
        self._binary = binary
        self._env = environment(server, home)

    def _run(self, *arguments: str | Path) -> str:
        return run([self._binary, *arguments], self._env)

    def close(self) -> None:
        pass


class Aws(_Cli):
    def __init__(self, server: Server, home: Path, binary: str | Path) -> None:
        super().__init__(server, home, binary)
        self._env |= {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            **botocore_trust(server),
        }

    def make_bucket(self, bucket: str) -> None:
        self._run("s3", "mb", f"s3://{bucket}")

    def sync(self, tree: Path, bucket: str) -> None:
        self._run("s3", "sync", "--no-progress", tree, f"s3://{bucket}")

    def fetch(self, bucket: str, into: Path) -> None:
        self._run("s3", "cp", "--recursive", "--no-progress", f"s3://{bucket}", into)

    def keys(self, bucket: str) -> set[str]:
        listed = json.loads(self._run("s3api", "list-objects-v2", "--bucket", bucket, "--page-size", "7"))
        return {each["Key"] for each in listed["Contents"]}

    def put(self, bucket: str, key: str, file: Path) -> None:
        metadata = ",".join(f"{name}={value}" for name, value in sdk_program.METADATA.items())
        if file.stat().st_size < 2**20:
            self._run("s3api", "put-object", "--bucket", bucket, "--key", key, "--body", file, "--metadata", metadata)
        else:
            self._run("s3", "cp", "--no-progress", "--metadata", metadata, file, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, file: Path) -> None:
        self._run("s3api", "get-object", "--bucket", bucket, "--key", key, file)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._run("s3", "cp", "--no-progress", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def remove(self, bucket: str) -> None:
        self._run("s3", "rb", "--force", f"s3://{bucket}")


class Rclone(_Cli):
    def __init__(self, server: Server, home: Path, binary: str | Path) -> None:
        super().__init__(server, home, binary)
        config = home / "rclone.conf"
        config.touch(0o600)
        config.write_text(
            f"[trove]\ntype = s3\nprovider = Other\nendpoint = {server.endpoint}\n"
            f"access_key_id = {server.access_key}\nsecret_access_key = {server.secret_key}\n"
        )
        self._env["RCLONE_CONFIG"] = str(config)
        if server.ca is not None:
            self._env["RCLONE_CA_CERT"] = str(server.ca)

    def make_bucket(self, bucket: str) -> None:
        self._run("mkdir", f"trove:{bucket}")

    def sync(self, tree: Path, bucket: str) -> None:
        self._run("sync", tree, f"trove:{bucket}")

    def fetch(self, bucket: str, into: Path) -> None:
        self._run("copy", f"trove:{bucket}", into)
        self._run("check", "--download", f"trove:{bucket}", into)

    def keys(self, bucket: str) -> set[str]:
        return set(json_keys(self._run("lsjson", "-R", "--files-only", f"trove:{bucket}"), "Path"))

    def put(self, bucket: str, key: str, file: Path) -> None:
        metadata = [f"--header-upload=x-amz-meta-{name}: {value}" for name, value in sdk_program.METADATA.items()]
        self._run("copyto", "--s3-upload-cutoff=5M", *metadata, file, f"trove:{bucket}/{key}")

    def get(self, bucket: str, key: str, file: Path) -> None:
        self._run("copyto", f"trove:{bucket}/{key}", file)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._run("copyto", "--s3-copy-cutoff=6M", f"trove:{bucket}/{key}", f"trove:{bucket}/{to}")

    def remove(self, bucket: str) -> None:
        self._run("purge", f"trove:{bucket}")


def json_keys(text: str, name: str) -> list[str]:
    return [each[name] for each in json.loads(text)]


class S3cmd(_Cli):
    def __init__(self, server: Server, home: Path, binary: str | Path) -> None:
        super().__init__(server, home, binary)
        config = home / ".s3cfg"
        config.touch(0o600)
        config.write_text(
            f"[default]\nhost_base = {server.host}\nhost_bucket = {server.host}\n"
            f"use_https = {server.ca is not None}\n"
            "acl_public = False\n"  # or `cp` sends an ACL of its own, which AWS refuses since 2023, too
            f"access_key = {server.access_key}\nsecret_key = {server.secret_key}\n"
            + (f"ca_certs_file = {server.ca}\n" if server.ca else "")
        )

    def make_bucket(self, bucket: str) -> None:
        self._run("mb", f"s3://{bucket}")

    def sync(self, tree: Path, bucket: str) -> None:
        self._run("sync", "--no-progress", f"{tree}/", f"s3://{bucket}/")

    def fetch(self, bucket: str, into: Path) -> None:
        self._run("get", "--recursive", "--no-progress", f"s3://{bucket}/", f"{into}/")

    def keys(self, bucket: str) -> set[str]:
        lines = self._run("ls", "--recursive", f"s3://{bucket}").splitlines()
        return {line.split(f"s3://{bucket}/", 1)[1] for line in lines}

    def put(self, bucket: str, key: str, file: Path) -> None:
        metadata = [f"--add-header=x-amz-meta-{name}:{value}" for name, value in sdk_program.METADATA.items()]
        self._run("put", "--no-progress", *metadata, file, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, file: Path) -> None:
        self._run("get", "--no-progress", "--force", f"s3://{bucket}/{key}", file)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._run("cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def remove(self, bucket: str) -> None:
        self._run("rb", "--recursive", "--force", f"s3://{bucket}")


class Library:
    """One of those in sdk.py, in a process that lives as long as this object."""

    def __init__(self, server: Server, home: Path, python: str | Path, name: str) -> None:
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        if name != "boto3":
            keys = {"TEST_ACCESS_KEY": server.access_key, "TEST_SECRET_KEY": server.secret_key}
        self._process = subprocess.Popen(
            [python, sdk_program.__file__, name, server.endpoint, REGION],
            env=environment(server, home) | keys | botocore_trust(server),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, verb: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, *arguments], default=str) + "\n")
        self._process.stdin.flush()
        too_long = threading.Timer(COMMAND_S_MAX, self._process.kill)
        too_long.start()
        line = self._process.stdout.readline()
        too_long.cancel()
        assert line, f"{verb}: the process has ended, or was ended after {COMMAND_S_MAX} s"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def make_bucket(self, bucket: str) -> None:
        self._ask("make_bucket", bucket)

    def sync(self, tree: Path, bucket: str) -> None:
        self._ask("sync", tree, bucket)

    def fetch(self, bucket: str, into: Path) -> None:
        self._ask("fetch", bucket, into)

    def keys(self, bucket: str) -> set[str]:
        return set(self._ask("sizes", bucket))

    def put(self, bucket: str, key: str, file: Path) -> None:
        self._ask("put", bucket, key, file)

    def get(self, bucket: str, key: str, file: Path) -> None:
        self._ask("get", bucket, key, file)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._ask("copy", bucket, key, to)

    def remove(self, bucket: str) -> None:
        self._ask("remove", bucket)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(COMMAND_S_MAX)
        assert self._process.stdout is not None
        self._process.stdout.close()


_NO_FOLDERS = dict.fromkeys(("two//slashes", "/first", "last/", "a/./b", "a/../b"), "a path is made tidy first")
_TABS_BY_PICTURE = {"tab\tinside": "control characters become pictures of them"}


@dataclass(frozen=True)
class Row:
    """A line of the table of clients."""

    name: str
    open: Callable[[Server, Path], Program]
    cannot: dict[str, str] = field(default_factory=dict)
    """Keys it cannot name, and why: docs/clients.md says so, too."""
    makes_buckets: bool = True
    copies_metadata: bool = True
    """Of objects that it copies in parts."""
    odd_keys_max: int = 100
    """As many are tried: each costs a command two starts."""


def _library(name: str) -> Callable[[Server, Path], Program]:
    python = sys.executable if name == "boto3" else INSTALLED / "python"
    return lambda server, home: Library(server, home, python, name)


CLIENTS = (
    Row("aws", lambda server, home: Aws(server, home, INSTALLED / "aws"), copies_metadata=False, odd_keys_max=4),
    Row("rclone", lambda server, home: Rclone(server, home, INSTALLED / "rclone"), _NO_FOLDERS | _TABS_BY_PICTURE),
    Row("rclone-debian", lambda server, home: Rclone(server, home, "/usr/bin/rclone"), _NO_FOLDERS | _TABS_BY_PICTURE),
    Row(
        "s3cmd",
        lambda server, home: S3cmd(server, home, INSTALLED / "s3cmd"),
        {"last/": "a slash at the end means: below it, by the file's name"},
    ),
    Row("boto3", _library("boto3")),
    Row("minio", _library("minio"), dict.fromkeys(("a/./b", "a/../b"), "refused by it")),
    Row("obstore", _library("obstore"), _NO_FOLDERS | {"tab\tinside": "refused by it"}, makes_buckets=False),
    Row("s3fs", _library("s3fs"), dict.fromkeys(("last/", "/first"), "written, but not removed")),
)
