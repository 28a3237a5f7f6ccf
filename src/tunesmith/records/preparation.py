"""What preparing a dataset did to its rows."""

from __future__ import annotations
