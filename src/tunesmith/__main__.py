"""`python -m tunesmith`."""

from .cli import entry

entry()
