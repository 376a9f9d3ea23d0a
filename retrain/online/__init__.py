"""Online updates: small steps on the newest labels, between runs."""
