"""Preparing a dataset in steps that a local and a distributed run share: pure functions over batches of rows."""
