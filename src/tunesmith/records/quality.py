"""What the rows are like, beyond their structure."""

from __future__ import annotations

from .base import Part


class Quality(Part):
    """Figures on the rows' content; what is wrong stands in the findings."""
