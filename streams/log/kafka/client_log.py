"""Log lines of the two Kafka clients, sent through the structured logger.

librdkafka's lines are written at level debug: its errors also arrive as error events, and it repeats itself. Warnings
and errors of kafka-python, which logs through the standard library, keep their level.
"""

from __future__ import annotations

import logging

import structlog

_log = structlog.get_logger("tailrace.kafka")


class LibrdkafkaLog:
    """Logger for confluent-kafka's `logger` argument."""

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Write one line of librdkafka; `level` is one of the standard library's."""
        _log.debug("librdkafka", level_name=logging.getLevelName(level), message=message % arguments)


class _StructuredHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log.log(record.levelno, "kafka-python", logger=record.name, message=record.getMessage())


_HANDLER = _StructuredHandler(logging.WARNING)


def route_kafka_python() -> None:
    """Send kafka-python's warnings and errors to the structured logger; handlers of the application stay in place."""
    logger = logging.getLogger("kafka")
    if _HANDLER not in logger.handlers:
        logger.addHandler(_HANDLER)
