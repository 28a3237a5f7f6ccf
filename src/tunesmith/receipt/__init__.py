"""The receipt of a run: all its records in one, and the report a person reads."""
