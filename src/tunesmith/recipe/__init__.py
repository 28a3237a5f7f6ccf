"""The recipe: schema, reading, and the trainer's argument names."""

from .load import build_recipe, load_recipe
from .schema import Recipe

__all__ = ["Recipe", "build_recipe", "load_recipe"]
