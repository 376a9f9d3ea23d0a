"""Tailrace's worker and Faust integration beside other stream processors, with the same job on the same Kafka."""
