"""A small model, and a task that it learns in seconds: for `tunesmith demo`, for tests, for trying a recipe.

`task` generates the data (a customer's message to a shop, and the ticket to file), `build` made the model
in `small/`, and `corpus` and `tokenizer` are what it was made from. Nothing here is needed to tune a
model of your own.
"""
