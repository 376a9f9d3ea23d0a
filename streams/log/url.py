"""Addresses of logs: a URL and options become a log.

    sqlite:///flights.db            a file, relative to the working directory
    sqlite:////var/lib/flights.db   a file, by its absolute path (four slashes, as in SQLAlchemy)
    kafka://host:9092,host2:9092    an Apache Kafka cluster

Query parameters are options of the log (`?synchronous=full`, `?security.protocol=SSL`). Secrets do not
belong into URLs: pass them as `options`. A driver is imported when its URL is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from tailrace.errors import Exit
from tailrace.streams.log.base import Log, LogError

FORMS = "sqlite:///relative/path, sqlite:////absolute/path or kafka://host:port[,host:port]"

SECRET = ("password", "secret", "token", "jaas", "key.pem", "credential")
"""Words in the names of options whose values are masked wherever options are shown."""


class BadUrl(LogError, ValueError):
    """A string is not the address of a log; the message shows the valid forms."""

    exit_code = Exit.USAGE


def open_log(url: str, options: Mapping[str, str] | None = None) -> Log:
    """Open the log at `url`. `options` win over the URL's query parameters. Raises BadUrl, BadOption, Unreachable."""
    try:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError as error:
        raise BadUrl(f"{url!r} is not the address of a log ({error}): write {FORMS}") from None
    if "@" in parts.netloc or any(word in name.lower() for name in given for word in SECRET):
        raise BadUrl("A secret does not belong into a log's URL, which is logged and shown: give it as an option")
    chosen = given | dict(options or {})
    if parts.scheme == "sqlite":
        return _sqlite(url, unquote(parts.path), parts.netloc, chosen)
    if parts.scheme == "kafka":
        return _kafka(url, parts.netloc, parts.path, chosen)
    raise BadUrl(f"{url!r} is not the address of a log: write {FORMS}")


def _sqlite(url: str, path: str, host: str, options: Mapping[str, str]) -> Log:
    if host or len(path) < 2:
        raise BadUrl(f"{url!r} names no file: write sqlite:///relative/path or sqlite:////absolute/path")
    from tailrace.streams.log.sqlite.log import SqliteLog

    synchronous = options.get("synchronous", "normal")
    if options.keys() - {"synchronous"} or synchronous not in ("normal", "full"):
        raise BadUrl(f"{url!r}: the only option of an embedded log is synchronous, normal or full")
    return SqliteLog(path[1:], synchronous="full" if synchronous == "full" else "normal")


def _kafka(url: str, hosts: str, path: str, options: Mapping[str, str]) -> Log:
    if not hosts or path.strip("/") or not all(_has_port(host) for host in hosts.split(",")):
        raise BadUrl(f"{url!r} names no brokers: write kafka://host:port[,host:port]")
    from tailrace.streams.log.kafka.log import KafkaLog

    return KafkaLog(hosts, options)


def _has_port(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return bool(name) and port.isdigit() and 0 < int(port) < 65_536
