"""Measurements against the tools that people would use otherwise; `make bench` runs them."""
