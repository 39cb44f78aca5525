"""Who may come in: one key pair and the admin API's token. No defaults: made at the first start, or given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qss.errors import ConfigInvalid, Refused
from qss.host import Entropy
from qss.trove.durable import check_private, replace_durably
from qss.trove.node import CREDENTIALS

SECRET_CHARS_MIN: Final = 8
_ACCESS_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{3,128}")


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    admin_token: str = field(repr=False)
    fresh: bool = False  # made just now: to be shown once


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line and the environment say; None: nothing."""

    access_key: str | None = None
    secret_key_file: Path | None = None


def load_credentials(directory: Path, given: Given, environ: Mapping[str, str], entropy: Entropy) -> Credentials:
    """Given ones go before those kept in the directory. Raises ConfigInvalid, Refused."""
    kept = _kept(directory)
    access = given.access_key or environ.get("TROVE_ACCESS_KEY")
    secret = _secret(given.secret_key_file) or environ.get("TROVE_SECRET_KEY")
    if (access is None) != (secret is None):
        raise ConfigInvalid("give both, an access key and a secret key, or neither")
    fresh = access is None and "access_key" not in kept
    if fresh:
        kept |= {"access_key": entropy.token(10).hex().upper(), "secret_key": entropy.token(24).hex()}
    if fresh or not kept:
        kept = {"admin_token": entropy.token(24).hex()} | kept
        replace_durably(directory / CREDENTIALS, json.dumps(kept, indent=1).encode() + b"\n")
    access, secret = access or kept["access_key"], secret or kept["secret_key"]
    if not _ACCESS_KEY.fullmatch(access):
        raise ConfigInvalid("an access key has 3 to 128 letters, digits, dots, dashes or underscores")
    if len(secret) < SECRET_CHARS_MIN:
        raise ConfigInvalid(f"a secret key has at least {SECRET_CHARS_MIN} characters")
    return Credentials(access, secret, environ.get("TROVE_ADMIN_TOKEN") or kept["admin_token"], fresh)


def _kept(directory: Path) -> dict[str, str]:
    path = directory / CREDENTIALS
    if not path.exists():
        return {}
    check_private(path)
    try:
        value = json.loads(path.read_bytes())
        return {str(name): str(text) for name, text in value.items()} | {"admin_token": str(value["admin_token"])}
    except (ValueError, AttributeError, KeyError):
        raise Refused(f"{path} is damaged; put back its content or remove it to have new credentials made") from None


def _secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"the secret key file {path} cannot be read: {error}") from error
