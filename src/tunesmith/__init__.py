"""From raw data to a fine-tuned language model that is proven to be right."""

__version__ = "0.1.0"
