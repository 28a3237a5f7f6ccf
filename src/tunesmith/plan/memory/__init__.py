"""Memory of a training step in closed form: instant, without torch."""

from .closed import estimate
from .step import Step

__all__ = ["Step", "estimate"]
