"""Looking at what clients did, from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import boto3

from tests.harness.clients.programs import REGION, Server


class Judge:
    """Looks at a bucket from outside."""

    def __init__(self, server: Server, bucket: str) -> None:
        self.bucket = bucket
        self.s3 = boto3.session.Session().client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=REGION,
            verify=str(server.ca) if server.ca else None,
        )

    def writes(self) -> dict[str, Any]:
        """Key → when it was last written, to the millisecond, and what."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        found = [each for page in pages for each in page.get("Contents", [])]
        return {each["Key"]: (each["LastModified"], each["ETag"], each["Size"]) for each in found}

    def hash(self, key: str) -> str:
        return hashlib.sha256(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()).hexdigest()

    def metadata(self, key: str) -> dict[str, str]:
        return self.s3.head_object(Bucket=self.bucket, Key=key)["Metadata"]


def hashes(tree: Path, only: str = "*") -> dict[str, str]:
    """Of the files below, by their names there."""
    files = [path for path in tree.rglob(only) if path.is_file()]
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
