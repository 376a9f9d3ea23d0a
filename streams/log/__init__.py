"""The log port, its two drivers (Apache Kafka, SQLite), and the records that travel through it."""
