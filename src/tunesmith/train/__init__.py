"""The worker that trains a run folder."""
