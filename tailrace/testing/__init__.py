"""Support for tests of pipelines: all roles in the test process, a manual clock, and a temporary Kafka."""

from tailrace.testing.harness import Harness, ManualClock, NotIdle
from tailrace.testing.kafka import NoKafka, kafka

__all__ = ["Harness", "ManualClock", "NoKafka", "NotIdle", "kafka"]
