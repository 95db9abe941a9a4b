"""Certificates: a federation's own authority and the certificate of its one server (TLS for every connection)."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS = 825  # the longest that common TLS clients accept for a server certificate


def write(folder: Path, host: str) -> str:
    """Write `ca.pem`, `server.pem` and their private keys; returns the authority's certificate (PEM).

    Parameters
    ----------
    host : str
        Name or address under which the sites reach the server; loopback is always included.
    """
    ca_key, server_key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    authority = _begin("cohortium federation", ca_key.public_key(), "cohortium federation", ca_key)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    server = _begin(host, server_key.public_key(), "cohortium federation", ca_key)
    server = server.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    names = [_name(n) for n in dict.fromkeys((host, "localhost", "127.0.0.1"))]
    server = server.add_extension(x509.SubjectAlternativeName(names), critical=False)
    server = server.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    for name, key in (("ca.key", ca_key), ("server.key", server_key)):
        write_private(folder / name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem = authority.sign(ca_key, hashes.SHA384()).public_bytes(Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(server.sign(ca_key, hashes.SHA384()).public_bytes(Encoding.PEM))
    return pem.decode()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, at no moment otherwise."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _begin(
    name: str, public: ec.EllipticCurvePublicKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of hospitals differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
