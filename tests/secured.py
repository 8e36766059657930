"""A broker that asks who is calling: certificates, SCRAM users and ACLs, all made for one test run.

Its plain listener is the back door: whoever comes there is `User:ANONYMOUS`, a super user.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from topics.broker import EmbeddedBroker, embedded_broker
from topics.kafka import admin_client
from topics.settings import Settings

ROOT_USER = "root"  # a super user, as the back door's, but one that has to say who it is
MECHANISM = "SCRAM-SHA-512"
SECRET = "correct-horse-battery-staple"  # noqa: S105 recognisable in whatever must not show it
WAIT_S = 20.0


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder: `ca.pem`, and what it has signed."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        folder.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate("test authority", key, "test authority", key, authority=True)
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, key, certificate)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of `name`, for 127.0.0.1, as two PEM files."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, "test authority", self.key, authority=False)
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    authority: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_id, critical=False)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        built = built.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return built.sign(issuer_key, hashes.SHA256())


@dataclass(frozen=True)
class Secured:
    """The broker, who signed its certificate, and settings for whoever calls."""

    broker: EmbeddedBroker
    authority: Authority

    def back_door(self, prefix: str = "") -> Settings:
        """Settings of a super user who need not say who it is."""
        return Settings(bootstrap=self.broker.bootstrap, prefix=prefix)

    def scram(self, user: str, password: str, prefix: str = "", tls: bool = True) -> Settings:
        """Settings of a user with a password, over TLS or in the clear."""
        protocol = "SASL_SSL" if tls else "SASL_PLAINTEXT"
        kafka = {
            "security.protocol": protocol,
            "sasl.mechanism": MECHANISM,
            "sasl.username": user,
            "sasl.password": password,
        }
        if tls:
            kafka["ssl.ca.location"] = str(self.authority.ca)
        return Settings(bootstrap=self.broker.address(protocol), prefix=prefix, kafka=kafka)

    def root(self, prefix: str = "") -> Settings:
        """Settings of a super user over SASL_SSL."""
        return self.scram(ROOT_USER, SECRET, prefix)

    def certified(self, prefix: str = "") -> Settings:
        """Settings of a super user who shows a certificate."""
        certificate, key = self.authority.sign(ROOT_USER)
        kafka = {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.ca),
            "ssl.certificate.location": str(certificate),
            "ssl.key.location": str(key),
        }
        return Settings(bootstrap=self.broker.address("SSL"), prefix=prefix, kafka=kafka)

    def add_users(self, passwords: Mapping[str, str]) -> None:
        """Makes SCRAM users, or changes their passwords."""
        admin = admin_client(self.back_door())
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4_096)
        upserts: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(user, info, password.encode()) for user, password in passwords.items()
        ]
        for done in admin.alter_user_scram_credentials(upserts).values():
            done.result(WAIT_S)

    def allow(self, bindings: Sequence[AclBinding]) -> None:
        admin = admin_client(self.back_door())
        for done in admin.create_acls(list(bindings)).values():
            done.result(WAIT_S)


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """A broker with an authorizer and three more listeners: SSL asks for a certificate, SASL_SSL and
    SASL_PLAINTEXT for a SCRAM user. Nobody but super users may do anything until `allow` says so."""
    authority = Authority.make(folder / "authority")
    certificate, key = authority.sign("broker")
    store = folder / "broker-store.pem"  # as Java reads one: the key, and its certificate behind it
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{ROOT_USER};User:CN={ROOT_USER}",
        "sasl.enabled.mechanisms": MECHANISM,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ("sasl_ssl", "sasl_plaintext"):
        settings[f"listener.name.{listener}.{MECHANISM.lower()}.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
    with embedded_broker(settings, protocols=("SSL", "SASL_SSL", "SASL_PLAINTEXT")) as broker:
        secured = Secured(broker, authority)
        secured.add_users({ROOT_USER: SECRET})
        yield secured
