"""Translation of connection options for both Kafka clients, and their refusal by name."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.certificates import Certificates

from tailrace.streams.log.base import LogError
from tailrace.streams.log.kafka.client import Connection
from tailrace.streams.log.kafka.log import KafkaLog
from tailrace.streams.log.kafka.oidc import OidcTokens
from tailrace.streams.log.kafka.options import (
    INTERPRETED,
    NAMES,
    OIDC,
    REFUSED,
    TLS,
    BadOption,
    admin_options,
    check_options,
)

OIDC_OPTIONS = {
    "security.protocol": "sasl_plaintext",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.client.id": "me",
    "sasl.oauthbearer.client.secret": "word",
    "sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token",
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_option_that_cannot_reach_both_clients_is_refused(name: str) -> None:
    """Opening a log with such an option raises BadOption, which names the option and the alternative."""
    with pytest.raises(BadOption, match=f"{name} is not supported: .*(obtain|use|set|convert|export)"):
        KafkaLog("127.0.0.1:9092", {name: "value"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ssl.ca.locations": "/ca.pem"}, r"ssl\.ca\.locations .*did you mean ssl\.ca\.location\?"),
        ({"sasl.nothing.like.it": "1"}, r"sasl\.nothing\.like\.it"),
        ({"security.protocol": "tls"}, "write one of PLAINTEXT"),
        ({"sasl.mechanism": "MD5"}, "write one of PLAIN"),
        ({"sasl.mechanism": "OAUTHBEARER"}, r"sasl\.oauthbearer\.method=oidc"),
        ({"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"}, r"needs .*token\.endpoint\.url"),
        ({"ssl.ca.location": "/nowhere/ca.pem"}, r"/nowhere/ca\.pem.* cannot be read"),
        ({"security.protocol": "ssl", "ssl.ca.pem": "no certificate"}, "cannot be used"),
    ],
)
def test_options_that_cannot_work_are_refused_at_start(options: dict[str, str], message: str) -> None:
    """A wrong name, a wrong value, an incomplete set and an unreadable file are named before any connection."""
    with pytest.raises(BadOption, match=message):
        check_options(options)


def test_an_unknown_property_of_librdkafka_is_named() -> None:
    """An option without relation to security that librdkafka does not know is refused when a client opens."""
    with pytest.raises(BadOption, match=r"lingers\.ms"):
        Connection("127.0.0.1:1", {"lingers.ms": "5"}).producer({})


def test_every_supported_name_is_known_to_librdkafka() -> None:
    """Each option of the tables is one that librdkafka accepts, or knows but was built without."""
    for name in sorted(NAMES.keys() | TLS | OIDC.keys() | INTERPRETED):
        try:
            Producer({"bootstrap.servers": "127.0.0.1:1", name: "value", "log_level": 0})
        except Exception as error:
            assert "No such configuration property" not in str(error), name  # noqa: PT017


@pytest.mark.parametrize("form", ["location", "pem", "keystore"])
def test_key_material_in_every_form_reaches_administration(form: str, tmp_path: Path) -> None:
    """Files, PEM text and a PKCS#12 keystore all become the client's certificate of one TLS connection."""
    certificates = Certificates(tmp_path)
    options = {"security.protocol": "ssl"} | {
        "location": {
            "ssl.ca.location": str(certificates.ca),
            "ssl.certificate.location": str(certificates.client_certificate),
            "ssl.key.location": str(certificates.client_key),
            "enable.ssl.certificate.verification": "true",
        },
        "pem": {
            "ssl.ca.pem": certificates.ca.read_text(),
            "ssl.certificate.pem": certificates.client_certificate.read_text(),
            "ssl.key.pem": certificates.client_key.read_text(),
        },
        "keystore": {
            "ssl.ca.location": str(certificates.ca),
            "ssl.keystore.location": str(certificates.client_keystore),
            "ssl.keystore.password": certificates.PASSWORD,
        },
    }[form]
    check_options(options)
    context = admin_options(options)["ssl_context"]
    subject = certificates.handshake(context)
    assert subject == "client"


def test_verification_can_be_switched_off_for_both_clients() -> None:
    """Without verification kafka-python checks neither the certificate nor the host name."""
    context = admin_options({"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"})["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


@contextmanager
def issuing(status: int = 200) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A token endpoint, and the requests that it got: authorization and body."""
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            requests.append((self.headers["Authorization"], body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"access_token": f"token-{len(requests)}", "expires_in": 100}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", requests
        server.shutdown()
        thread.join()


def test_tokens_are_fetched_with_the_client_credentials_grant() -> None:
    """Administration fetches a token with the options that librdkafka uses, and keeps it for 80 % of its lifetime."""
    now = 0.0
    with issuing() as (url, requests):
        endpoint = {"sasl.oauthbearer.token.endpoint.url": url, "sasl.oauthbearer.scope": "a b"}
        provider = admin_options(OIDC_OPTIONS | endpoint)["sasl_oauth_token_provider"]
        assert provider.token() == "token-1"
        assert requests == [("Basic bWU6d29yZA==", "grant_type=client_credentials&scope=a+b")]
        timed = OidcTokens(url, "me", "word", extensions="cluster=a,pool=b", clock=lambda: now)
        assert [timed.token(), timed.token()] == ["token-2", "token-2"]
        assert timed.extensions() == {"cluster": "a", "pool": "b"}
        now = 81.0
        assert timed.token() == "token-3"


def test_a_token_endpoint_that_refuses_is_named() -> None:
    """A refusal names the endpoint, the status and the options to check."""
    with issuing(401) as (url, _), pytest.raises(LogError, match=rf"{url} gave no token .*401.*client\.secret"):
        OidcTokens(url, "me", "wrong").token()
