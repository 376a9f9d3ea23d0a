"""The log on Apache Kafka: confluent-kafka carries the records, kafka-python administers the cluster."""
