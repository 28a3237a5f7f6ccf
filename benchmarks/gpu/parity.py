"""Whether a row has the same loss alone, in a padded batch and packed with others, under each kind of attention."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.train.attention import register

_LENGTHS = (96, 17, 160, 9, 64)
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Differences of a row's mean loss that rounding alone explains; float32 products without TF32."""
_WRONG = "as one row (control)"


def parity(config: dict[str, Any], device: str) -> dict[str, Any]:
    """Greatest differences of a row's mean loss from eager attention on the row alone, by dtype, attention and way.

    The control packs without position_ids, so that rows see each other: if that made no difference, the others' being
    equal would say nothing.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    cases = [case for dtype in _TOLERANCE for case in _cases(config, device, dtype)]
    return {"cases": cases, "equal": all(case["as_expected"] for case in cases)}


def _cases(config: dict[str, Any], device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype)
    model.eval()
    rows = [torch.randint(config["vocab_size"], (length,), device=device) for length in _LENGTHS]
    expected, cases = None, []
    for attention in _attentions(dtype, device):
        model.set_attn_implementation(attention)
        ways = _ways(model, rows)
        expected = ways["alone"] if expected is None else expected
        for way, losses in ways.items():
            difference = (losses - expected).abs().max().item()
            close = difference <= _TOLERANCE[dtype]
            cases.append(
                {
                    "dtype": str(dtype).removeprefix("torch."),
                    "attention": attention,
                    "way": way,
                    "difference": difference,
                    "as_expected": not close if way == _WRONG else close,
                }
            )
    return cases


def _attentions(dtype: torch.dtype, device: str) -> list[str]:
    """Eager first, which the others are held against; flash kernels compute in 16 bits."""
    flash = device == "cpu" or dtype != torch.float32
    installed = ["flash_attention_2"] if device == "cuda" and importlib.util.find_spec("flash_attn") else []
    return ["eager", "sdpa", *([register(), *installed] if flash else [])]


def _ways(model: Any, rows: list[Tensor]) -> dict[str, Tensor]:
    """Mean loss of each row, by the way in which the rows are put together."""
    lengths = [len(row) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    positions = torch.cat([torch.arange(length, device=mask.device) for length in lengths])
    packed = torch.cat(rows)[None]

    def logits(**given: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(model(**given, use_cache=False).logits).float()

    alone = [logits(input_ids=row[None])[0] for row in rows]
    batch = logits(input_ids=padded, attention_mask=mask)
    apart = logits(input_ids=packed, position_ids=positions[None])[0].split(lengths)
    mixed = logits(input_ids=packed)[0].split(lengths)
    found = {"alone": alone, "padded": list(batch), "packed by position_ids": list(apart), _WRONG: list(mixed)}
    return {way: torch.stack([_loss(*pair) for pair in zip(of, rows, strict=True)]) for way, of in found.items()}


def _loss(logits: Tensor, row: Tensor) -> Tensor:
    return functional.cross_entropy(logits[: len(row) - 1], row[1:])
