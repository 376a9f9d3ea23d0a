"""Connection options, translated so that they reach both Kafka clients.

Options have librdkafka's names. librdkafka (records) takes them as they are. kafka-python (administration) gets a
translation of every option that concerns the connection's security, and of client.dns.lookup. A security option that
cannot be translated is refused by name when the log is opened, because a connection that works for records and fails
for administration is hard to diagnose. Other options, such as `linger.ms`, tune reading and writing and are left out
of administration.
"""

from __future__ import annotations

import difflib
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailrace.errors import Exit
from tailrace.streams.log.base import LogError

NAMES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "client.dns.lookup": "client_dns_lookup",
}
"""Options that kafka-python has under another name."""

TLS = frozenset((
    "ssl.ca.pem", "ssl.certificate.pem", "ssl.key.pem", "ssl.keystore.location", "ssl.keystore.password",
    "ssl.cipher.suites", "enable.ssl.certificate.verification",
))  # fmt: skip
"""Options that kafka-python gets as a TLS context made here."""

OIDC = {
    "sasl.oauthbearer.token.endpoint.url": "endpoint",
    "sasl.oauthbearer.client.id": "client_id",
    "sasl.oauthbearer.client.secret": "client_secret",
    "sasl.oauthbearer.scope": "scope",
    "sasl.oauthbearer.extensions": "extensions",
}
"""Options that kafka-python gets as a provider of tokens."""

INTERPRETED = frozenset((
    "ssl.endpoint.identification.algorithm", "sasl.oauthbearer.method", "https.ca.location", "https.ca.pem",
))  # fmt: skip

_KERBEROS = "obtain the ticket outside (kinit, k5start) and set sasl.kerberos.service.name alone"
_CLIENT_CREDENTIALS = "use sasl.oauthbearer.method=oidc with a token endpoint, client id and client secret"
_OPENSSL = "set it for both clients in the OpenSSL configuration (OPENSSL_CONF)"
REFUSED = {
    "sasl.kerberos.principal": _KERBEROS,
    "sasl.kerberos.keytab": _KERBEROS,
    "sasl.kerberos.kinit.cmd": _KERBEROS,
    "sasl.kerberos.min.time.before.relogin": _KERBEROS,
    "sasl.oauthbearer.config": _CLIENT_CREDENTIALS,
    "enable.sasl.oauthbearer.unsecure.jwt": _CLIENT_CREDENTIALS,
    "ssl.curves.list": _OPENSSL,
    "ssl.sigalgs.list": _OPENSSL,
    "ssl.providers": _OPENSSL,
    "ssl.engine.location": "convert the key to PEM (ssl.key.location) or PKCS#12 (ssl.keystore.location)",
    "ssl.engine.id": "convert the key to PEM (ssl.key.location) or PKCS#12 (ssl.keystore.location)",
    "ssl.ca.certificate.stores": "export the certificates to a PEM file (ssl.ca.location)",
    "ssl.truststore.location": "it is a Java option; export the certificates to a PEM file (ssl.ca.location)",
    "ssl.truststore.password": "it is a Java option; export the certificates to a PEM file (ssl.ca.location)",
    "sasl.jaas.config": "it is a Java option; set sasl.mechanism, sasl.username and sasl.password",
}
"""Security options that cannot reach both clients, each with the alternative."""

FILES = (
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.crl.location", "ssl.keystore.location",
    "https.ca.location",
)  # fmt: skip
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER")
_SECURITY = ("security.", "sasl.", "ssl.", "https.", "enable.ssl.", "enable.sasl.")
_SUPPORTED = NAMES.keys() | TLS | OIDC.keys() | INTERPRETED


class BadOption(LogError):
    """A Kafka option that is unknown, has an impossible value or cannot reach both clients."""

    exit_code = Exit.USAGE


def check_options(options: Mapping[str, str]) -> None:
    """Raise BadOption, which names the option and the fix, if the options cannot work for both clients."""
    for name in options:
        _check_name(name)
    protocol, mechanism = options.get("security.protocol", "plaintext"), _mechanism(options)
    if protocol.upper() not in PROTOCOLS:
        raise BadOption(f"Kafka option security.protocol={protocol!r}: write one of {', '.join(PROTOCOLS)}")
    if mechanism is not None and mechanism not in MECHANISMS:
        raise BadOption(f"Kafka option sasl.mechanism={mechanism!r}: write one of {', '.join(MECHANISMS)}")
    if mechanism == "OAUTHBEARER":
        _check_oauth(options)
    for name in FILES:
        if name in options and not os.access(options[name], os.R_OK):
            raise BadOption(f"Kafka option {name}: {options[name]!r} cannot be read; check the path and permissions")
    if protocol.upper().endswith("SSL"):
        _tls_context(options)


def admin_options(options: Mapping[str, str]) -> dict[str, Any]:
    """Translate options for kafka-python's KafkaAdminClient. Options that only readers and writers use are left out."""
    translated: dict[str, Any] = {NAMES[name]: value for name, value in options.items() if name in NAMES}
    if "security_protocol" in translated:
        translated["security_protocol"] = translated["security_protocol"].upper()
    if options.get("ssl.endpoint.identification.algorithm") == "none":
        translated["ssl_check_hostname"] = False
    if options.keys() & TLS or (Path(options.get("ssl.ca.location", "")).is_dir() and "ssl.ca.location" in options):
        translated = {name: value for name, value in translated.items() if not name.startswith("ssl_")}
        translated["ssl_context"] = _tls_context(options)
    if _mechanism(options) == "OAUTHBEARER":
        from tailrace.streams.log.kafka.oidc import OidcTokens

        arguments: dict[str, Any] = {OIDC[name]: value for name, value in options.items() if name in OIDC}
        translated["sasl_oauth_token_provider"] = OidcTokens(**arguments, tls=_endpoint_tls(options))
    return translated


def _mechanism(options: Mapping[str, str]) -> str | None:
    mechanism = options.get("sasl.mechanism", options.get("sasl.mechanisms"))
    return None if mechanism is None else mechanism.upper()


def _check_name(name: str) -> None:
    if name in REFUSED:
        raise BadOption(f"Kafka option {name} is not supported: {REFUSED[name]}")
    if name.startswith(_SECURITY) and name not in _SUPPORTED:
        near = difflib.get_close_matches(name, _SUPPORTED, n=1)
        hint = f"did you mean {near[0]}?" if near else "supported are " + ", ".join(sorted(_SUPPORTED))
        raise BadOption(f"Kafka option {name} is not supported: {hint}")


def _check_oauth(options: Mapping[str, str]) -> None:
    if options.get("sasl.oauthbearer.method", "").lower() != "oidc":
        raise BadOption(f"Kafka option sasl.mechanism=OAUTHBEARER needs a source of tokens: {_CLIENT_CREDENTIALS}")
    missing = [name for name in list(OIDC)[:3] if name not in options]
    if missing:
        raise BadOption(f"Kafka option sasl.oauthbearer.method=oidc needs {', '.join(missing)} too")


def _tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Make the TLS context that librdkafka makes of the same options. Raises BadOption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _trust(context, options.get("ssl.ca.location"), options.get("ssl.ca.pem"))
        _identify(context, options)
        if "ssl.crl.location" in options:
            context.load_verify_locations(options["ssl.crl.location"])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if "ssl.cipher.suites" in options:
            context.set_ciphers(options["ssl.cipher.suites"])
    except (ssl.SSLError, ValueError, OSError) as error:
        raise BadOption(f"The Kafka options ssl.* cannot be used: {error}") from None
    if options.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if options.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _endpoint_tls(options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    _trust(context, options.get("https.ca.location"), options.get("https.ca.pem"))
    return context


def _trust(context: ssl.SSLContext, location: str | None, pem: str | None) -> None:
    if location is not None:
        directory = os.path.isdir(location)
        context.load_verify_locations(None if directory else location, location if directory else None)
    if pem is not None:
        context.load_verify_locations(cadata=pem)
    if location is None and pem is None:
        context.load_default_certs()


def _identify(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    """Load the client's own certificate and key, from files, from PEM text or from a PKCS#12 file."""
    if "ssl.keystore.location" in options:
        certificate, key = _keystore(Path(options["ssl.keystore.location"]), options.get("ssl.keystore.password"))
    else:
        certificate = _material(options, "ssl.certificate")
        key = _material(options, "ssl.key")
    if not certificate:
        return
    with tempfile.TemporaryDirectory() as directory:  # Python loads a certificate chain from files alone
        chain = Path(directory, "chain.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(key + b"\n" + certificate)
        context.load_cert_chain(chain, password=options.get("ssl.key.password"))


def _material(options: Mapping[str, str], prefix: str) -> bytes:
    if f"{prefix}.pem" in options:
        return options[f"{prefix}.pem"].encode()
    return Path(options[f"{prefix}.location"]).read_bytes() if f"{prefix}.location" in options else b""


def _keystore(path: Path, password: str | None) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

    secret = None if password is None else password.encode()
    key, certificate, others = pkcs12.load_key_and_certificates(path.read_bytes(), secret)
    if key is None or certificate is None:
        raise ValueError(f"{path} holds no certificate with its key")
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (certificate, *others))
    return chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
