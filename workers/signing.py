"""Signs what skills are asked, as Alexa does, so that a skill can tell us from anybody else.

Two headers: `Signature-256`, base64 of RSA with SHA-256 (PKCS #1 v1.5) over the body, and `SignatureCertChainUrl`,
where the certificate of that key is found (developer.amazon.com, "Host a Custom Skill as a Web Service").
"""

import base64
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from topics.errors import UsageError

MIN_BITS = 2048


class Signer:
    """Signs with one key. Prints as its URL: the key is never shown."""

    def __init__(self, key: Path, certificate_url: str) -> None:
        """Reads the PEM file `key`. Raises UsageError where it holds no RSA key without a passphrase."""
        self._key = _read(key)
        self._url = certificate_url

    def __repr__(self) -> str:
        return f"Signer({self._url})"

    def headers(self, body: bytes) -> dict[str, str]:
        """The two headers that go with `body`."""
        signature = self._key.sign(body, PKCS1v15(), SHA256())
        return {"Signature-256": base64.b64encode(signature).decode(), "SignatureCertChainUrl": self._url}


def _read(path: Path) -> RSAPrivateKey:
    """None of these errors' words is passed on: a parser may quote what it read."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UsageError(f"key {path} cannot be read: {error.strerror}") from error
    except TypeError:
        raise UsageError(
            f"key {path} needs a passphrase: give one without, for the router alone to read"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"key {path} is no private key in PEM form") from None
    if not isinstance(key, RSAPrivateKey):
        raise UsageError(f"key {path} is no RSA key: skills check RSA signatures")
    if key.key_size < MIN_BITS:
        raise UsageError(f"key {path} has {key.key_size} bits: skills want {MIN_BITS} at least")
    return key
