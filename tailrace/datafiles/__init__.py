"""Data files: reading CSV, JSON lines and Parquet, inferring a declaration, and sending rows."""
