"""boto3 clients of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from qss.trove.testing import TroveServer


def boto_client(endpoint: str, access_key: str, secret_key: str, *, ca: Path | None = None, **config: Any) -> Any:
    """With the settings that boto3 has by itself, but for `config` (of botocore)."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        verify=None if ca is None else str(ca),
        config=Config(signature_version="s3v4", **config),
    )


def client_of(server: TroveServer, *, ca: Path | None = None, **config: Any) -> Any:
    """Of its administrator."""
    return boto_client(server.endpoint, server.access_key, server.secret_key, ca=ca, **config)
