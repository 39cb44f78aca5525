"""Which front door of a node speaks TLS, and whom it lets begin to speak."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qss.errors import ConfigInvalid, Refused
from qss.s3.serve import Tls


def tls_of(
    certificate: Path | None, key: Path | None, client_ca: Path | None, mutual: Sequence[str], fronts: Sequence[str]
) -> dict[str, Tls | None]:
    """For each of `fronts`. With a client CA, those in `mutual` (none named: all) want a client's certificate. Raises
    ConfigInvalid, Refused."""
    if (certificate is None) != (key is None):
        raise ConfigInvalid("give both, --tls-cert and --tls-key, or neither")
    if certificate is None or key is None:
        if client_ca is not None or mutual:
            raise ConfigInvalid("--tls-client-ca wants --tls-cert and --tls-key")
        return dict.fromkeys(fronts)
    if mutual and client_ca is None:
        raise ConfigInvalid("--mutual-tls wants --tls-client-ca: who signs the clients' certificates?")
    unknown = [name for name in mutual if name not in fronts]
    if unknown:
        raise ConfigInvalid(f'--mutual-tls: no front door "{unknown[0]}" is open; there are: {", ".join(fronts)}')
    _check_private(key)
    asked = set(mutual or fronts)
    found: dict[str, Tls | None] = {}
    for name in fronts:
        tls = Tls(certificate, key, client_ca if name in asked else None)
        tls.check()
        found[name] = tls
    return found


def _check_private(key: Path) -> None:
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise Refused(f"the TLS key {key} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise Refused(f"the TLS key {key} may be read by others; run chmod 600 {key}")
