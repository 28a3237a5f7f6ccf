"""The quality of prepared rows: duplicates, strange answers, characters, preferences, private data, contamination."""

from .examine import examine, near_leaks
from .near import clusters
from .texts import fingerprint, said

__all__ = ["clusters", "examine", "fingerprint", "near_leaks", "said"]
