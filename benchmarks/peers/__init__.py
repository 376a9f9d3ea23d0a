"""Our worker and Faust integration beside other stream processors, doing the same job on the same Kafka."""
