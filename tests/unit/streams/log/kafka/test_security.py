"""TLS and SASL on a real broker: the same options reach both clients, and a failure names its cause."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.log_place import drain
from support.secure_kafka import SecureKafka, token_endpoint

from tailrace.streams.log.base import LogError, Topic, Unreachable
from tailrace.streams.log.kafka.log import KafkaLog
from tailrace.streams.log.records import Out

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.long,
    # kafka-python leaves sockets to the garbage collector when its bootstrap fails
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with listeners for TLS and SASL."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("no Apache Kafka of one's own: set KAFKA_HOME to an unpacked Apache Kafka (needs Java 17)")
    broker = SecureKafka(Path(home), tmp_path_factory.mktemp("secure"))
    with broker:
        yield broker


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are told after seconds."""
    for module in ("client", "admin"):
        monkeypatch.setattr(f"tailrace.streams.log.kafka.{module}.CONNECT_S", 4.0)
    monkeypatch.setattr("tailrace.streams.log.kafka.admin.DOWN_S", 4.0)


def round_trip(log: KafkaLog) -> None:
    """Create a topic, write a record and read it: both clients work."""
    topic = uuid4().hex
    try:
        log.create([Topic(topic)])
        writer = log.writer()
        writer.write([Out(topic, None, b"value")])
        writer.flush()
        writer.close()
        reader = log.reader([topic])
        assert [record.value for record in drain(reader, 1)] == [b"value"]
        reader.close()
    finally:
        log.close()


def tls(broker: SecureKafka) -> dict[str, str]:
    """Options of a TLS connection by a PKCS#12 keystore and the text of the authority's certificate."""
    return {
        "security.protocol": "ssl",
        "ssl.ca.pem": broker.certificates.ca.read_text(),
        "ssl.keystore.location": str(broker.certificates.client_keystore),
        "ssl.keystore.password": broker.certificates.PASSWORD,
    }


PLAIN = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "me"}


def test_tls_reaches_both_clients(broker: SecureKafka) -> None:
    """PEM text and a PKCS#12 keystore serve records and administration."""
    round_trip(KafkaLog(broker.address("TLS"), tls(broker)))


def test_verification_is_off_for_both_clients(broker: SecureKafka) -> None:
    """Without the authority's certificate both clients connect when verification is switched off."""
    options = {name: value for name, value in tls(broker).items() if name != "ssl.ca.pem"}
    round_trip(KafkaLog(broker.address("TLS"), options | {"enable.ssl.certificate.verification": "false"}))


def test_sasl_reaches_both_clients(broker: SecureKafka) -> None:
    """A user name and password serve records and administration."""
    round_trip(KafkaLog(broker.address("PLAIN"), PLAIN | {"sasl.password": "word"}))


def test_oauth_reaches_both_clients(broker: SecureKafka) -> None:
    """Tokens of an endpoint serve records and administration."""
    with token_endpoint() as url:
        options = {
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "me",
            "sasl.oauthbearer.client.secret": "word",
            "sasl.oauthbearer.token.endpoint.url": url,
        }
        round_trip(KafkaLog(broker.address("OAUTH"), options))


@pytest.mark.parametrize("opening", ["topics", "reader", "writer"])
def test_a_failure_of_tls_names_its_cause(broker: SecureKafka, opening: str) -> None:
    """A certificate that the client does not trust is named, whichever client meets it."""
    options = {name: value for name, value in tls(broker).items() if name != "ssl.ca.pem"}
    fails(KafkaLog(broker.address("TLS"), options), opening, "does not accept the connection .*certificate.*ssl")


@pytest.mark.parametrize("opening", ["topics", "reader", "writer"])
def test_a_failure_of_sasl_names_its_cause(broker: SecureKafka, opening: str) -> None:
    """A wrong password is named, whichever client meets it."""
    log = KafkaLog(broker.address("PLAIN"), PLAIN | {"sasl.password": "wrong"})
    fails(log, opening, "does not accept the connection .*[Aa]uthentication failed.*sasl")


def fails(log: KafkaLog, opening: str, message: str) -> None:
    """Opening raises Unreachable with this message."""
    with pytest.raises(Unreachable, match=message) as raised:
        log.reader(["events"]) if opening == "reader" else getattr(log, opening)()
    assert isinstance(raised.value, LogError)
    log.close()
