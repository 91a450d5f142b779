"""Certificates and key pairs of a federation, in memory: what is made, with which strength and for how long.

The authority signs the SuperLink's certificate only. A node is known by its public key (ECDSA on P-384), which the
coordinator registers; so there is no certificate of a node that could expire.
"""

import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, SERVER_DAYS = 3650, 365
ALWAYS = ("superlink", "localhost", "127.0.0.1")  # in the compose network, and on the machine itself
CLOCK_SKEW = timedelta(days=1)  # a site whose clock is behind accepts a new certificate


@dataclass(frozen=True)
class Signed:
    """A private key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def key_bytes(self) -> bytes:
        """Return the key, PEM (PKCS 8), not encrypted: servers start without a person."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_bytes(self) -> bytes:
        """Return the certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def new_authority() -> Signed:
    """Return a new authority, valid for ten years, that may sign servers' certificates and no further authority."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name("winnow authority")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates and lists
    builder = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Signed(key, builder.sign(key, hashes.SHA384()))


def new_server(authority: Signed, hosts: Sequence[str]) -> Signed:
    """Return a new key and certificate of the SuperLink under the given names and addresses, valid for a year."""
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        _builder(_name("superlink"), authority.certificate.subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Signed(key, builder.sign(authority.key, hashes.SHA384()))


def new_node() -> tuple[bytes, bytes]:
    """Return a new key pair of a node in OpenSSH's format, which Flower reads: private, public."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b"\n"


def new_secret() -> bytes:
    """Return what a server and its executor share: 48 random bytes as text."""
    return secrets.token_urlsafe(48).encode()


def read(key: bytes, certificate: bytes) -> Signed:
    """Return a stored key and certificate; raises ValueError if they are neither."""
    loaded = serialization.load_pem_private_key(key, password=None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError("expected an elliptic-curve key")
    return Signed(loaded, x509.load_pem_x509_certificate(certificate))


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses for which a certificate is valid."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def renewal(hosts: Sequence[str]) -> str:
    """Return the command that renews the SuperLink's certificate for these hosts and no others.

    >>> renewal(["superlink", "localhost", "fl.example.org", "fl.example.org", "192.0.2.7"])
    'winnow keys renew-server --host fl.example.org --host 192.0.2.7'
    """
    named = (f" --host {host}" for host in dict.fromkeys(hosts) if host not in ALWAYS)
    return "winnow keys renew-server" + "".join(named)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
