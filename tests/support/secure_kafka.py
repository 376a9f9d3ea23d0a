"""A real Kafka broker that also listens for TLS, SASL/PLAIN and SASL/OAUTHBEARER."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from support.certificates import Certificates

from tailrace.testing.kafka import KafkaCluster
from tailrace.testing.ports import free_port

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"


class SecureKafka(KafkaCluster):
    """One broker; `address(listener)` for TLS, PLAIN and OAUTH. The user of SASL/PLAIN is "me" with password "word"."""

    def __init__(self, home: Path, directory: Path) -> None:
        super().__init__(home, directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.certificates = Certificates(directory)
        self._listeners = {name: free_port() for name in ("TLS", "PLAIN", "OAUTH")}

    def address(self, listener: str) -> str:
        """Return the address of a listener, "host:port"."""
        return f"127.0.0.1:{self._listeners[listener]}"

    def _properties(self, node: int) -> dict[str, object]:
        properties = super()._properties(node)
        addresses = ",".join(f"{name}://{self.address(name)}" for name in self._listeners)
        keystore = self._directory / "broker.pem"
        keystore.write_bytes(
            self.certificates.server_key.read_bytes() + self.certificates.server_certificate.read_bytes()
        )
        return properties | {
            "listeners": f"{properties['listeners']},{addresses}",
            "advertised.listeners": f"{properties['advertised.listeners']},{addresses}",
            "listener.security.protocol.map": f"{properties['listener.security.protocol.map']},"
            "TLS:SSL,PLAIN:SASL_PLAINTEXT,OAUTH:SASL_PLAINTEXT",
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": keystore,
            "listener.name.tls.ssl.truststore.type": "PEM",
            "listener.name.tls.ssl.truststore.location": self.certificates.ca,
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.plain.plain.sasl.jaas.config": f'{_PLAIN} user_me="word";',
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": f'{_OAUTH} unsecuredLoginStringClaim_sub="broker";',
        }


@contextmanager
def token_endpoint() -> Iterator[str]:
    """Serve unsigned tokens, which a broker without a key accepts; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            now = time.time()
            token = f"{_part({'alg': 'none'})}.{_part({'sub': 'me', 'iat': now, 'exp': now + 600})}."
            self.wfile.write(json.dumps({"access_token": token, "expires_in": 600, "token_type": "bearer"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def _part(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
