"""OAuth tokens for administration: the client credentials grant, as librdkafka's `sasl.oauthbearer.method=oidc`.

Source: RFC 6749, section 4.4.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from kafka.net.sasl.oauth import AbstractTokenProvider

from tailrace.streams.log.base import LogError

_TIMEOUT_S = 10.0
_USED_SHARE = 0.8  # of a token's lifetime; then the next one is fetched, as librdkafka does
_LIFETIME_S = 60.0  # of a token whose issuer does not state it


class OidcTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Provider of access tokens for kafka-python. A token is used until 80 % of its lifetime is over."""

    def __init__(
        self,
        endpoint: str,
        client_id: str,
        client_secret: str,
        scope: str = "",
        extensions: str = "",
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint, self._scope, self._tls, self._clock = endpoint, scope, tls, clock
        self._credentials = base64.b64encode(f"{quote(client_id)}:{quote(client_secret)}".encode()).decode()
        self._extensions = dict(pair.split("=", 1) for pair in extensions.split(",") if "=" in pair)
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = float("-inf")

    def token(self) -> str:
        """Return a valid access token. Raises LogError when the endpoint gives none."""
        with self._lock:
            if self._clock() >= self._renew_at:
                self._fetch()
            return self._token

    def extensions(self) -> dict[str, str]:
        """Return the SASL extensions that are sent with the token (RFC 7628)."""
        return self._extensions

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        headers = {"Authorization": f"Basic {self._credentials}", "Accept": "application/json"}
        request = Request(self._endpoint, urlencode(form).encode(), headers)  # noqa: S310 (the operator's own option)
        try:
            with urlopen(request, timeout=_TIMEOUT_S, context=self._tls) as answer:  # noqa: S310
                fields = json.load(answer)
            self._token = str(fields["access_token"])
            lifetime = float(fields.get("expires_in", _LIFETIME_S))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LogError(
                f"The token endpoint {self._endpoint} gave no token ({type(error).__name__}: {error}): check "
                "sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret"
            ) from None
        self._renew_at = self._clock() + _USED_SHARE * lifetime
