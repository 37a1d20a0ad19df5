"""TLS for what leaves the machine: a server's certificate, a client's authority or pin."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hud.errors import ConfigError, WireError


class CertificatePinError(WireError):
    """Raised when a server's certificate is not the pinned one; nothing was sent to it."""


def server_context(cert: str | Path, key: str | Path | None = None) -> ssl.SSLContext:
    """Return a server's context for a certificate chain and its key, TLS 1.2 at least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"the TLS certificate {cert} or its key cannot be used: {exc}") from exc
    return context


def client_context(params: Mapping[str, Any]) -> ssl.SSLContext:
    """Return a client's context for a runtime's params.

    `ca` is a path or PEM text and replaces the system's authorities. `pin` is the SHA-256 of the server's
    certificate (DER) in hex: with a pin alone neither name nor issuer is checked, since the pin says more.
    """
    ca = params.get("ca")
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        try:
            text = str(ca)
            context = ssl.create_default_context(
                cadata=text if "-----BEGIN" in text else None,
                cafile=None if "-----BEGIN" in text else text,
            )
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"params['ca'] cannot be used as a certificate authority: {exc}") from exc
    elif params.get("pin"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def check_pin(certificate: bytes | None, pin: str) -> None:
    """Raise `CertificatePinError` unless the DER `certificate` has the fingerprint `pin`."""
    found = hashlib.sha256(certificate or b"").hexdigest()
    wanted = pin.lower().replace(":", "").removeprefix("sha256/")
    if not hmac.compare_digest(found, wanted):
        raise CertificatePinError(
            f"the server's certificate has SHA-256 {found}, not the pinned {wanted}; nothing was sent to it"
        )


def fingerprint(pem: str) -> str:
    """Return what to pin for a certificate in PEM: the SHA-256 of its DER form, in hex."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
