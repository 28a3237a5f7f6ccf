"""Tuned against base on the same held-out rows: the loss, exact match, and how sure the difference is."""

from .compare import evaluate

__all__ = ["evaluate"]
