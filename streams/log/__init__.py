"""The log port, its drivers (Apache Kafka, SQLite), and the records and codecs of a pipeline."""
