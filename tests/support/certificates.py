"""Temporary certificate authority, with certificates for a server on 127.0.0.1 and for a client."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID


class Certificates:
    """PEM files in a directory, and a PKCS#12 keystore of the client."""

    PASSWORD = "keystore-password"

    def __init__(self, directory: Path) -> None:
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca_name = _name("authority")
        authority = self._sign(self._ca_name, self._ca_key, authority=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(authority.public_bytes(Encoding.PEM))
        self.server_certificate, self.server_key, _, _ = self._issue(directory, "server")
        self.client_certificate, self.client_key, certificate, key = self._issue(directory, "client")
        self.client_keystore = directory / "client.p12"
        self.client_keystore.write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"client", key, certificate, None, BestAvailableEncryption(self.PASSWORD.encode())
            )
        )

    def handshake(self, client: ssl.SSLContext) -> str:
        """Connect with this client context to a server that demands a client certificate; return its common name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        subjects: list[str] = []

        def serve(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
                subjects.append(str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value))

        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=serve, args=(theirs,))
        thread.start()
        with client.wrap_socket(ours, server_hostname="127.0.0.1") as secure:
            secure.recv(1)
        thread.join()
        return subjects[0]

    def _issue(self, directory: Path, name: str) -> tuple[Path, Path, x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(name), key)
        paths = directory / f"{name}.pem", directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return *paths, certificate, key

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key()), critical=False
            )
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._ca_key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
