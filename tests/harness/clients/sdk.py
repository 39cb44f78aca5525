"""An S3 library as a program: a request as JSON on each line of standard input, its answer on standard output.

Runs in the environment of the clients (scripts/setup), so it imports nothing of this project. Usage:
python sdk.py boto3|minio|obstore|s3fs ENDPOINT REGION; keys and certificate authorities come by each library's own
environment variables, or TEST_ACCESS_KEY and TEST_SECRET_KEY where it has none.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Protocol

METADATA = {"colour": "green"}
KEY, SECRET = (os.environ.get(name, "") for name in ("TEST_ACCESS_KEY", "TEST_SECRET_KEY"))


class Sdk(Protocol):
    """What each library does in its own words, with its own defaults."""

    def make_bucket(self, bucket: str) -> None: ...
    def put(self, bucket: str, key: str, file: str) -> None: ...
    def get(self, bucket: str, key: str, file: str) -> None: ...
    def sizes(self, bucket: str) -> dict[str, int]: ...
    def copy(self, bucket: str, key: str, to: str) -> None: ...
    def remove(self, bucket: str) -> None:
        """All objects, and the bucket."""
        ...


class Boto3:
    def __init__(self, endpoint: str, region: str) -> None:
        import boto3

        self._s3 = boto3.client("s3", endpoint_url=endpoint, region_name=region)

    def make_bucket(self, bucket: str) -> None:
        self._s3.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, file: str) -> None:
        self._s3.upload_file(file, bucket, key, ExtraArgs={"Metadata": METADATA})

    def get(self, bucket: str, key: str, file: str) -> None:
        self._s3.download_file(bucket, key, file)

    def sizes(self, bucket: str) -> dict[str, int]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._s3.copy({"Bucket": bucket, "Key": key}, bucket, to)

    def remove(self, bucket: str) -> None:
        done = self._s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in self.sizes(bucket)]})
        assert not done.get("Errors"), done["Errors"]
        self._s3.delete_bucket(Bucket=bucket)


class Minio:
    def __init__(self, endpoint: str, region: str) -> None:
        import minio

        scheme, host = endpoint.split("://")
        self._s3 = minio.Minio(host, access_key=KEY, secret_key=SECRET, secure=scheme == "https")

    def make_bucket(self, bucket: str) -> None:
        self._s3.make_bucket(bucket)

    def put(self, bucket: str, key: str, file: str) -> None:
        self._s3.fput_object(bucket, key, file, metadata=METADATA)

    def get(self, bucket: str, key: str, file: str) -> None:
        self._s3.fget_object(bucket, key, file)

    def sizes(self, bucket: str) -> dict[str, int]:
        return {each.object_name: each.size for each in self._s3.list_objects(bucket, recursive=True)}

    def copy(self, bucket: str, key: str, to: str) -> None:
        from minio.commonconfig import CopySource

        self._s3.copy_object(bucket, to, CopySource(bucket, key))

    def remove(self, bucket: str) -> None:
        from minio.deleteobjects import DeleteObject

        errors = list(self._s3.remove_objects(bucket, [DeleteObject(key) for key in self.sizes(bucket)]))
        assert not errors, errors
        self._s3.remove_bucket(bucket)


class Obstore:
    """It makes and removes no buckets."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint, self._region = endpoint, region

    def _store(self, bucket: str):
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self._endpoint,
            region=self._region,
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": self._endpoint.startswith("http:")},
        )

    def put(self, bucket: str, key: str, file: str) -> None:
        import obstore

        obstore.put(self._store(bucket), key, Path(file), attributes=METADATA)

    def get(self, bucket: str, key: str, file: str) -> None:
        import obstore

        with Path(file).open("wb") as out:
            for chunk in obstore.get(self._store(bucket), key):
                out.write(chunk)

    def sizes(self, bucket: str) -> dict[str, int]:
        import obstore

        return {each["path"]: each["size"] for page in obstore.list(self._store(bucket)) for each in page}

    def copy(self, bucket: str, key: str, to: str) -> None:
        import obstore

        obstore.copy(self._store(bucket), key, to)

    def remove(self, bucket: str) -> None:
        import obstore

        obstore.delete(self._store(bucket), list(self.sizes(bucket)))


class Fsspec:
    def __init__(self, endpoint: str, region: str) -> None:
        import s3fs

        self._fs = s3fs.S3FileSystem(endpoint_url=endpoint, key=KEY, secret=SECRET)

    def make_bucket(self, bucket: str) -> None:
        self._fs.mkdir(bucket)

    def put(self, bucket: str, key: str, file: str) -> None:
        source = Path(file)
        if source.stat().st_size < 2**20:
            self._fs.put_file(file, f"{bucket}/{key}", Metadata=METADATA)
            return
        # put_file sends parts above 100 MB only; an open file does above its block size.
        with self._fs.open(f"{bucket}/{key}", "wb", block_size=5 * 2**20, Metadata=METADATA) as out:
            out.write(source.read_bytes())

    def get(self, bucket: str, key: str, file: str) -> None:
        self._fs.get_file(f"{bucket}/{key}", file)

    def sizes(self, bucket: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        found = self._fs.find(bucket, detail=True)
        return {name.removeprefix(f"{bucket}/"): info["size"] for name, info in found.items()}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self._fs.cp_file(f"{bucket}/{key}", f"{bucket}/{to}")

    def remove(self, bucket: str) -> None:
        self._fs.rm(bucket, recursive=True)  # with names it would take brackets and stars in them for patterns


LIBRARIES = {"boto3": Boto3, "minio": Minio, "obstore": Obstore, "s3fs": Fsspec}


def _sync(sdk: Sdk, tree: str, bucket: str) -> None:
    """Upload what the listing does not show with its size."""
    there = sdk.sizes(bucket)
    for path in sorted(Path(tree).rglob("*")):
        key = str(path.relative_to(tree))
        if path.is_file() and there.get(key) != path.stat().st_size:
            sdk.put(bucket, key, str(path))


def _fetch(sdk: Sdk, bucket: str, into: str) -> None:
    for key in sdk.sizes(bucket):
        target = Path(into, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        sdk.get(bucket, key, str(target))


def main() -> None:
    library, endpoint, region = sys.argv[1:]
    sdk = LIBRARIES[library](endpoint, region)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        try:
            match verb:
                case "sync":
                    answer = _sync(sdk, *arguments)
                case "fetch":
                    answer = _fetch(sdk, *arguments)
                case _:
                    answer = getattr(sdk, verb)(*arguments)
            print(json.dumps({"answer": answer}), flush=True)
        except Exception:
            print(json.dumps({"error": traceback.format_exc()}), flush=True)


if __name__ == "__main__":
    main()
