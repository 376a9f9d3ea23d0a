"""Tests of pipelines: all roles in the test's own process, a manual clock, and a throw-away Kafka."""

from tailrace.testing.harness import Harness, ManualClock, NotIdle
from tailrace.testing.kafka import NoKafka, kafka

__all__ = ["Harness", "ManualClock", "NoKafka", "NotIdle", "kafka"]
