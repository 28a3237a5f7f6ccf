"""The exact tier of the memory plan: the real trainer's step under fake tensors, without weights and without a GPU."""

from .ask import ExactPeak, exact_peak, measure_exact
from .request import Request

__all__ = ["ExactPeak", "Request", "exact_peak", "measure_exact"]
