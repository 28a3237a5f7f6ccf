"""What makes a step fast without changing what it learns: how rows lie in a batch, which attention sees them, in which
precision is computed, how much fits at once, and what is computed again.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from packaging.version import Version

from ..models.table import read_table
from ..recipe.schema import Recipe
from ..records import VARLEN, Finding, Hardware, ModelFacts, Plan, Speed
from ..rules import finding
from .choices import Choices
from .documents import Documents, worth_grouping
from .methods import effective_batch
from .remote import is_remote
from .rows import GENERATING, Rows
from .sizing import is_flat, longest_seen, micro_batch, step_of

FLASH: Final = (VARLEN, "flash_attention_2", "flash_attention_3")
"""Attentions that see each row alone, at no cost for what lies beside it."""
_END_TO_END: Final = ("sft", "clm")
"""Methods whose trainer takes rows end to end."""
_VIRTUAL: Final = ("prompt", "prefix")  # adapters whose tokens stand before each row of a batch
_VARLEN_SINCE: Final = Version("2.11")  # of torch: torch.nn.attention.varlen with windows and grouped heads
_WIDEST: Final = 256  # of heads, which flash kernels take
_HOPPER: Final = ("H100", "H200", "H20", "H800", "GH200")  # what FlashAttention 3 is built for
_MASKED_LENGTH: Final = 4096  # tokens of a packed row up to which a quadratic mask is no matter beside the blocks
_MASKED_GAIN: Final = 1.3  # of the tokens computed: less isn't worth the mask
_LARGE: Final = 10_000_000  # parameters from which on bf16 was faster on a CPU: 1.8 times at 30M, 0.8 times at 0.4M
_WORKERS: Final = 2  # processes that make batches; rows are tokens already
_MANY_ROWS: Final = 20_000  # from which on tokenizing in several processes saves more than starting them takes


def choose_fast(
    choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, dtype: str
) -> None:
    """Precision, layout, attention, batch and recomputing, each with its reason; `dtype` is that of the weights."""
    half = _precision(choices, recipe, model, hardware, dtype)
    attention = _attention(choices, recipe, model, hardware, half=half)
    if recipe.method in _END_TO_END:
        _layout(choices, recipe, rows, hardware, flash=attention in FLASH)
    _batch(choices, recipe, rows, model, hardware, dtype=dtype, attention=attention)
    _loading(choices, recipe, rows, hardware)
    _blocks(choices, recipe, hardware, images=rows.images)


def speed_of(choices: Choices) -> Speed:
    """What of the choices isn't told to the trainer, but done to its model."""
    noted = choices.noted()
    attention = noted["attention"]
    return Speed(
        attention="" if attention == "as loaded" else attention, compile=noted["compile"], kernels=noted["kernels"]
    )


def check_fast(plan: Plan) -> Iterator[Finding]:
    """P075 and P076 on rows that lie end to end, P077 where packing cuts rows, P078 offloading, P079 dropout."""
    training, dropout = plan.training, plan.model.attention_dropout
    if plan.speed.attention == VARLEN and dropout:
        yield finding("P079", "speed.attention", dropout=dropout)
    if training.get("activation_offloading") and plan.hardware.device != "cuda":
        yield finding("P078", "training.activation_offloading", device=plan.hardware.device)
    if not is_flat(plan.method, training):
        return
    where = "training.packing" if training.get("packing") else "training.padding_free"
    if reason := read_table("packing")["leaking"].get(plan.model.model_type):
        yield finding("P075", where, model_type=plan.model.model_type, reason=reason)
    elif plan.speed.attention not in FLASH:
        longest = training["max_length"] or plan.train.longest or 0
        yield finding("P076", where, length=longest * training["per_device_train_batch_size"])
    if training.get("packing") and training.get("packing_strategy") == "wrapped":
        yield finding("P077", "training.packing_strategy")


def _precision(choices: Choices, recipe: Recipe, model: ModelFacts, hardware: Hardware, dtype: str) -> bool:
    """Whether products are computed in 16 bits."""
    if recipe.training.get("fp16"):
        return True
    mixed, reason = hardware.device == "cuda" and hardware.bf16, f"computes in {dtype}"
    if mixed:
        reason = "computes in bf16 on tensor cores"
    elif hardware.device == "cpu" and hardware.bf16 and model.parameters >= _LARGE and recipe.method in _END_TO_END:
        mixed, reason = True, "this CPU multiplies in bf16, nearly twice as fast; weights stay as they are"
    return bool(choices.choose("bf16", mixed, reason)) or dtype != "float32"


class _Answer(NamedTuple):
    """An attention and why."""

    name: str
    reason: str


def _attention(choices: Choices, recipe: Recipe, model: ModelFacts, hardware: Hardware, *, half: bool) -> str:
    wanted = recipe.speed.attention
    if wanted != "auto":
        name = VARLEN if wanted == "varlen" else wanted
        return str(choices.note("model.attention", name, "set in the recipe", from_recipe=True))
    unfit = _not_end_to_end(recipe, model)
    answer = _Answer("as loaded", unfit) if unfit else _flash(recipe, model, hardware, half=half)
    return str(choices.note("model.attention", *answer))


def _not_end_to_end(recipe: Recipe, model: ModelFacts) -> str:
    """Why rows can't lie end to end; empty where they can."""
    if recipe.method not in _END_TO_END:
        return f"the trainer of {recipe.method} pads its rows"
    if recipe.adapter.kind in _VIRTUAL:
        return "virtual tokens stand before each row of a padded batch"
    if model.vision:
        return "images need the model's own layout"
    if model.model_type not in read_table("packing")["exact"]:
        return f"it isn't known that rows of {model.model_type} models could lie end to end without seeing each other"
    if model.attention_dropout:
        return (
            f"it drops out {model.attention_dropout:.0%} of its attention weights, which no kernel for such rows does"
        )
    return ""


def _flash(recipe: Recipe, model: ModelFacts, hardware: Hardware, *, half: bool) -> _Answer:
    """The fastest attention over rows of unequal length that the device and this environment have."""
    if hardware.device == "cpu":
        return _Answer(VARLEN, "each row alone: nothing is computed for padding or masks")
    if unfit := _not_flash(model, hardware, half=half):
        return _Answer("as loaded", unfit)
    if not is_remote(recipe):
        if importlib.util.find_spec("flash_attn_interface") and any(name in hardware.name for name in _HOPPER):
            return _Answer("flash_attention_3", "installed, and made for this GPU")
        if importlib.util.find_spec("flash_attn"):
            return _Answer("flash_attention_2", "installed: rows of unequal length without padding")
    if Version(importlib.metadata.version("torch")) < _VARLEN_SINCE:
        return _Answer("as loaded", f"no flash-attn here, and torch has its own from {_VARLEN_SINCE} on")
    return _Answer(VARLEN, "torch's own flash attention over rows of unequal length; no flash-attn is needed")


def _not_flash(model: ModelFacts, hardware: Hardware, *, half: bool) -> str:
    """Why flash kernels can't be used; empty where they can."""
    if hardware.device != "cuda" or not hardware.bf16:
        return "flash kernels need an NVIDIA GPU with bf16"
    if not half:
        return "flash kernels compute in 16 bits only"
    if model.head_dim > _WIDEST:
        return f"flash kernels take heads of up to {_WIDEST}, these are {model.head_dim} wide"
    return ""


def _layout(choices: Choices, recipe: Recipe, rows: Rows, hardware: Hardware, *, flash: bool) -> None:
    """Whether rows are packed before training, laid end to end batch by batch, or padded."""
    if recipe.method == "sft":
        choices.choose("packing", *_packing(choices, rows, hardware, flash=flash))
    if choices.training()["packing"]:
        if recipe.method == "sft":
            choices.choose("eval_packing", False, "held-out rows make the batches that they make without packing")
        return
    if recipe.adapter.kind in _VIRTUAL:
        reason = "virtual tokens stand before each row of a padded batch"
    else:
        reason = "rows of a batch lie end to end" if flash else "needs an attention that sees each row alone"
    choices.choose("padding_free", flash, reason)


def _packing(choices: Choices, rows: Rows, hardware: Hardware, *, flash: bool) -> tuple[bool, str]:
    """Whether to pack, and why."""
    length = choices.training()["max_length"]
    if hardware.device != "cuda":
        return False, "rows lie end to end without it" if flash else "needs an attention that sees each row alone"
    if length is None:
        return False, "without max_length there is no length to pack to"
    together = rows_together(rows, length)
    if flash:
        if together <= effective_batch("sft"):
            return True, f"{together:.1f} rows fill one of {length:,} tokens; no token goes to padding"
        return False, f"one packed row of {length:,} tokens would hold {together:.0f} rows, more than a step needs"
    documents = Documents.of(rows.by_length, length)
    padded = sum(tokens * share for tokens, share in documents.longest_of(effective_batch("sft")))
    gain = padded * together / length
    if length <= _MASKED_LENGTH and gain >= _MASKED_GAIN:
        return True, f"padding would take {gain:.1f} times the tokens; SDPA masks other rows in a packed one"
    return False, "without flash kernels the mask of packed rows costs about what padding does"


def rows_together(rows: Rows, length: int) -> float:
    """Rows in each packed row of so many tokens, in the mean (best-fit decreasing, as TRL packs)."""
    return len(rows.token_counts) / max(1, rows.packed(length))


def _batch(
    choices: Choices, recipe: Recipe, rows: Rows, model: ModelFacts, hardware: Hardware, *, dtype: str, attention: str
) -> None:
    """Rows of a micro-batch, how many make an update, and what is recomputed for them to fit."""
    given = {name: value for name, value in recipe.training.items() if value is not None}
    training = {**given, **choices.training()}
    length = longest_seen(rows, training)
    step = step_of(recipe, model, hardware, {**training, "dtype": dtype, "attention": attention}, length=length)
    documents = Documents.of(rows.by_length, length)
    packed = rows_together(rows, length) if training.get("packing") else 1.0
    wanted = effective_batch(recipe.method)
    if training.get("packing") and attention not in FLASH:
        given = {"per_device_train_batch_size": 1} | given
    sizing = micro_batch(
        step,
        hardware,
        given,
        flat=is_flat(recipe.method, training),
        documents=documents,
        update=max(1, round(wanted / packed)),
    )
    micro = choices.choose("per_device_train_batch_size", sizing.rows, sizing.why_rows)
    accumulation = max(1, round(wanted / packed / (micro * step.devices)))
    choices.choose(
        "gradient_accumulation_steps",
        accumulation,
        _why_accumulated(recipe, micro * step.devices, accumulation, packed),
    )
    if recipe.method in GENERATING:
        many = choices.training()["num_generations_eval"] or choices.training()["num_generations"]
        choices.choose("per_device_eval_batch_size", math.ceil(micro / many) * many, "whole groups of answers")
    else:
        why = (
            "as in training; the held-out loss is a mean over batches"
            if recipe.method in _END_TO_END
            else "as in training"
        )
        choices.choose("per_device_eval_batch_size", micro, why)
    _recomputing(choices, sizing.how, sizing.why_recomputes)
    if (
        not is_flat(recipe.method, training)
        and recipe.method in ("sft", "clm", "reward")
        and worth_grouping(documents, micro)
    ):
        choices.choose(
            "train_sampling_strategy",
            "group_by_length",
            "lengths differ much; neighbours pad each other less, in evaluations too",
        )


def _why_accumulated(recipe: Recipe, together: int, accumulation: int, packed: float) -> str:
    wanted = effective_batch(recipe.method)
    what = "answers" if recipe.method in GENERATING else "rows"
    if packed > 1:
        return (
            f"about {together * accumulation * packed:.0f} rows per optimizer step, packed into "
            f"{together * accumulation}: as many tokens as without packing"
        )
    return f"{together * accumulation} {what} per optimizer step; about {wanted} are usual for {recipe.method}"


def _recomputing(choices: Choices, how: str, reason: str) -> None:
    choices.choose("gradient_checkpointing", how != "off", reason)
    if how == "selective":
        choices.choose("gradient_checkpointing_kwargs", {"selective": True}, "attention isn't computed again")
    elif how == "offload":
        choices.choose("activation_offloading", True, "what blocks begin with waits in main memory")


def _loading(choices: Choices, recipe: Recipe, rows: Rows, hardware: Hardware) -> None:
    """Processes that make batches beside the GPU, and that tokenize."""
    if recipe.method not in GENERATING and hardware.device == "cuda" and hardware.cores > _WORKERS:
        choices.choose("dataloader_num_workers", _WORKERS, "batches are made while the GPU computes")
        choices.choose("dataloader_persistent_workers", True, "they are started once")
    if recipe.method in ("dpo", "kto", "reward") and len(rows.train) >= _MANY_ROWS and hardware.cores > 1:
        choices.choose("dataset_num_proc", min(hardware.cores, 8), f"{len(rows.train):,} rows are tokenized")


def _blocks(choices: Choices, recipe: Recipe, hardware: Hardware, *, images: bool) -> None:
    """Whether blocks are compiled, and whether kernels replace parts of them."""
    gpu, wanted = hardware.device == "cuda", recipe.speed.compile
    if wanted != "auto":
        choices.note("model.compile", wanted, "set in the recipe", from_recipe=True)
    elif gpu and recipe.method in _END_TO_END and not recipe.training.get("torch_compile"):
        choices.note("model.compile", "auto", "block by block, once the first steps show that it will pay")
    else:
        choices.note("model.compile", "off", "compiling would take longer here than it saves")
    there = gpu and importlib.util.find_spec("liger_kernel") is not None
    if recipe.speed.kernels == "off":
        choices.note("model.kernels", False, "set in the recipe", from_recipe=True)
    elif recipe.method not in _END_TO_END or images:
        what = "rows with images" if images else recipe.method
        choices.note("model.kernels", False, f"they aren't tried for {what}")
    else:
        choices.note("model.kernels", there, "Liger's, if its loss is the same" if there else "no liger_kernel here")
