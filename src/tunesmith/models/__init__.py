"""What a model is, where it lives, and loading it."""
