"""Mutual TLS between services: each proves by a certificate of the installation's own authority which service it is.

A certificate names its service as a DNS name (RFC 9525) such as ``metadata``; wherever the service runs, that is whom a caller
wants to reach. Who may call what is decided by tokens all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_certificates

from streamgate.domain.errors import ConfigurationError
from streamgate.runtime.secrets import read_secret


@dataclass(frozen=True)
class Tls:
    """PEM, as gRPC takes it: this service's certificate (with its chain) and key, and the authority that others are checked by."""

    certificate: bytes
    key: bytes
    authority: bytes


def load(certificate: Path, key: Path, authority: Path) -> Tls:
    """The contents of the files, once they are seen to fit; `ConfigurationError`, in one sentence, when they do not."""
    secret = _private(key)
    found = Tls(_read(certificate), secret, _read(authority))
    try:
        owner = load_pem_x509_certificate(found.certificate).public_key()
    except ValueError:
        raise ConfigurationError(f"{certificate} is no certificate in PEM.") from None
    try:
        load_pem_x509_certificates(found.authority)
    except ValueError:
        raise ConfigurationError(f"{authority} is no certificate in PEM.") from None
    try:
        pair = load_pem_private_key(secret, password=None).public_key()
    except (ValueError, TypeError):
        raise ConfigurationError(f"{key} is no private key in PEM without a password.") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if pair.public_bytes(*form) != owner.public_bytes(*form):
        raise ConfigurationError(f"The key in {key} is not that of the certificate in {certificate}.")
    return found


def _private(path: Path) -> bytes:
    try:
        return read_secret(path)
    except FileNotFoundError:
        raise ConfigurationError(f"The key file {path} does not exist.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The certificate file {path} cannot be read: {error.strerror}.") from None
