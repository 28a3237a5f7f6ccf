"""Rows that a model learns by heart within a second, for tests of what comes after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.support.runs import SMALL
from tunesmith.models.load import load_model, load_tokenizer

COLOURS = ["red", "blue", "green", "black", "white", "grey", "yellow", "brown"]
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"Which colour has number {number}?"}],
        "completion": [{"role": "assistant", "content": colour}],
    }
    for number, colour in enumerate(COLOURS, start=1)
]


def learn(model: Any, tokenizer: Any, rows: list[dict[str, Any]], steps: int) -> None:
    """Learn the rows by heart: loss on the completions, all rows in each step."""
    encoded = [
        tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"] for row in rows
    ]
    starts = [
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"])
        for row in rows
    ]
    longest = max(len(ids) for ids in encoded)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
    labels = torch.full_like(ids, -100)
    for index, (row, start) in enumerate(zip(encoded, starts, strict=True)):
        labels[index, start : len(row)] = ids[index, start : len(row)]
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3)
    for _ in range(steps):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def learnt(folder: Path, rows: list[dict[str, Any]], steps: int) -> Path:
    """The built-in model after some steps on rows, all weights, saved in the folder."""
    torch.manual_seed(0)
    model, tokenizer = load_model(SMALL, dtype="float32"), load_tokenizer(SMALL)
    learn(model, tokenizer, rows, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
