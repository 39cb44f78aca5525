"""trove: requests a second and CPU per request of one node, beside the same bytes on the native file system."""

from __future__ import annotations

import http.client
import os
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from benchmarks.figures import Figure
from benchmarks.rig import Rig, cpu_s, timed
from qss.trove.testing import TroveServer

_SIZES = {"4 KiB": (4096, 2000), "4 MiB": (4 * 1024 * 1024, 60)}


def requests(rig: Rig) -> list[Figure]:
    """PUT and GET of 4 KiB and 4 MiB objects by presigned URL over one connection."""
    figures: list[Figure] = []
    with TroveServer(data=rig.root / "node") as server:
        for label, (size, count) in _SIZES.items():
            figures += _one_size(server, rig.native, label, size, count)
    return figures


def _one_size(server: TroveServer, native: Path, label: str, size: int, count: int) -> list[Figure]:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", request_checksum_calculation="when_required"),
    )
    bucket = f"bench-{size}"
    client.create_bucket(Bucket=bucket)
    body = os.urandom(size)
    urls = {
        verb: [
            client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": f"object-{number}"})
            for number in range(count)
        ]
        for verb, operation in (("PUT", "put_object"), ("GET", "get_object"))
    }
    endpoint = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(endpoint.hostname or "127.0.0.1", endpoint.port)
    figures = []
    for verb in ("PUT", "GET"):
        before = cpu_s([server.pid])
        wall_s = timed(partial(_all, connection, verb, urls[verb], body if verb == "PUT" else None, size))
        used_us = (cpu_s([server.pid]) - before) / count * 1e6
        native_s = timed(partial(_native, native, verb, body, count))
        note = f"node {used_us:.0f} CPU µs/request; native: file{' + fdatasync' if verb == 'PUT' else ''}"
        figures.append(Figure(f"trove {verb} {label}", count / wall_s, "requests/s", count / native_s, "", note))
    connection.close()
    return figures


def _all(connection: http.client.HTTPConnection, verb: str, urls: list[str], body: bytes | None, size: int) -> None:
    for url in urls:
        parts = urlsplit(url)
        connection.request(verb, f"{parts.path}?{parts.query}", body=body)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200 or (verb == "GET" and len(answer) != size):
            raise RuntimeError(f"{verb} answered {response.status}: {answer[:200]!r}")


def _native(directory: Path, verb: str, body: bytes, count: int) -> None:
    for number in range(count):
        path = directory / f"object-{len(body)}-{number}"
        if verb == "PUT":
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, body)
            os.fdatasync(handle)
            os.close(handle)
        else:
            handle = os.open(path, os.O_RDONLY)
            os.read(handle, len(body))
            os.close(handle)
