"""From a run's result to files that others can run: the merged model and GGUF, each proven to be the same model."""

from .stage import export

__all__ = ["export"]
