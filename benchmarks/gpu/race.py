"""Throughput: TRL as its documentation's example, TRL tuned by hand, and what tunesmith's plan chooses, in turns.

Each contestant trains a model with random weights on the same rows of very unequal length, 16 to an optimizer step, and
each runs twice, in the order A B C C B A, so that a slow minute hits all. Before it trains, its loss on one fixed batch
is taken: weights are drawn with one seed, so that it must be the others'. Speed is by tokens of the rows, so that what
packed rows leave over in the last step makes no difference.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import math
import random
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunesmith.models.load import load_tokenizer
from tunesmith.models.source import locate
from tunesmith.plan.choices import Choices
from tunesmith.plan.fast import choose_fast, speed_of
from tunesmith.plan.hardware import local_hardware
from tunesmith.plan.rows import Rows
from tunesmith.plan.work import body_parameters
from tunesmith.recipe import build_recipe
from tunesmith.records import Lengths, ModelFacts, Plan, Speed, TokenLengths
from tunesmith.train import speed

from .clock import Clock
from .configurations import LARGE, MIDDLE, RANK, SMALL, Adapter, facts_of, shape

DOCS, TUNED, TUNED_PACKED, OURS, COMPILED = (
    "TRL, docs example",
    "TRL, tuned: grouped",
    "TRL, tuned: packed",
    "tunesmith",
    "tunesmith, compiled",
)
PEAK = 989e12
"""Of H100 and H200 in bf16, dense, as MFU is usually counted."""
_UPDATE, _SEED = 16, 0
_STEPS, _FEW = (3, 8), (1, 1)  # warm and timed ones
_MEDIAN, _SPREAD = math.log(400), 0.8  # of rows' lengths, as conversations have them
_SAME = 0.02  # relative: rounding of bf16, and of fp32 weights against bf16 ones


@dataclasses.dataclass(frozen=True)
class Race:
    """One model and way to train it.

    Attributes:
        model: Id in the table of families, whose shapes are taken.
        longest: Tokens at which rows are cut.
        compiled: Whether compiled blocks run too.
        tiny: Of that model only its architecture is taken.
    """

    model: str
    adapter: Adapter
    longest: int = 2048
    compiled: bool = False
    tiny: bool = False

    @property
    def name(self) -> str:
        """What tells it from the others."""
        how = {"none": "full", "lora": "LoRA", "qlora": "QLoRA"}[self.adapter]
        return f"{self.model.rpartition('/')[2]} {how}" + (", tiny" if self.tiny else "")

    @property
    def steps(self) -> tuple[int, int]:
        """Steps before the clock counts, and those that it counts."""
        return _FEW if self.tiny else _STEPS

    @property
    def contestants(self) -> list[str]:
        """Who runs. An expert packs with flash-attn where it is installed, and tries both ways where it isn't."""
        flash = importlib.util.find_spec("flash_attn") is not None
        tuned = [TUNED_PACKED] if flash else [TUNED, TUNED_PACKED]
        return [DOCS, *tuned, OURS, *([COMPILED] if self.compiled else [])]


RACES = (
    Race(LARGE, "lora", compiled=True),
    Race(SMALL, "none", compiled=True),
    Race(LARGE, "none"),
    Race(MIDDLE, "lora"),
    Race(LARGE, "qlora"),
    Race(MIDDLE, "none"),
    Race(SMALL, "lora"),
)
TRIED = (Race(SMALL, "lora", longest=96, tiny=True),)


def chosen_races(*, tiny: bool, four_bits: bool) -> Iterator[Race]:
    """What to run; QLoRA only where its 4-bit layers are installed."""
    return (one for one in (TRIED if tiny else RACES) if four_bits or one.adapter != "qlora")


def race(asked: Race, device: str) -> dict[str, Any]:
    """Each contestant's tokens per second of both turns, MFU, losses, gradient norms, loss on the fixed batch."""
    order = [*asked.contestants, *reversed(asked.contestants)]
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.contestants}
    for name in order:
        turns[name].append(_turn(asked, name, device))
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    found = {name: _summed(asked, both) for name, both in turns.items()}
    fixed = [one["fixed_loss"] for one in found.values() if one["status"] == "measured"]
    spread = (max(fixed) - min(fixed)) / min(fixed) if fixed else math.nan
    return {"contestants": found, "fixed_spread": spread, "equal": spread <= _SAME}


def _summed(asked: Race, turns: list[dict[str, Any]]) -> dict[str, Any]:
    failed = [turn for turn in turns if turn["status"] != "measured"]
    if failed:
        return failed[0]
    pace = statistics.fmean(turn["tokens_per_second"] for turn in turns)
    return turns[0] | {
        "tokens_per_second": pace,
        "turns": [turn["tokens_per_second"] for turn in turns],
        "mfu": pace * operations(asked) / PEAK,
        "trains": all(turn["trains"] for turn in turns),
    }


def operations(asked: Race) -> float:
    """Per token: 6 for each parameter of the matrix products where all are trained, 4 under an adapter; no attention.

    Kaplan et al. 2020: 2 forward, 2 for the inputs' gradients and 2 for the weights'. What is computed again doesn't
    count, as usual for MFU (Chowdhery et al. 2022).
    """
    facts = _facts(asked)
    return (6 if asked.adapter == "none" else 4) * (body_parameters(facts) + facts.vocabulary * facts.hidden)


def _facts(asked: Race) -> ModelFacts:
    return facts_of(asked.model, tiny=asked.tiny)


def lengths(asked: Race, count: int) -> list[int]:
    """Tokens of each row."""
    drawn = random.Random(_SEED)
    median = _MEDIAN if asked.longest > 256 else math.log(asked.longest / 3)
    return [min(asked.longest, max(8, round(drawn.lognormvariate(median, _SPREAD)))) for _ in range(count)]


def _turn(asked: Race, name: str, device: str) -> dict[str, Any]:
    """One contestant's training; running out of memory is a result."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _train(asked, name, device, folder)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if "out of memory" not in str(error).lower():
            raise
        return {"status": "out of memory", "error": str(error).splitlines()[0]}


def _train(asked: Race, name: str, device: str, folder: str) -> dict[str, Any]:
    from datasets import Dataset

    warm = asked.steps[0]
    counts = lengths(asked, _UPDATE * sum(asked.steps))
    torch.manual_seed(_SEED)
    rows = [torch.randint(asked_vocabulary(asked), (count,)).tolist() for count in counts]
    dataset = Dataset.from_dict({"input_ids": rows, "labels": rows})
    build = _ours if name in (OURS, COMPILED) else _trl
    trainer = build(asked, name, device, folder, dataset, counts)
    clock = Clock(warm=warm)
    trainer.add_callback(clock)
    fixed = _fixed_loss(trainer, rows[:4])
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    tokens = [entry["num_tokens"] for entry in logged]
    norms = [entry["grad_norm"] for entry in logged]
    losses = [entry["loss"] for entry in logged]
    return {
        "status": "measured",
        "tokens_per_second": (tokens[-1] - tokens[warm - 1]) / sum(clock.timed),
        "tokens": tokens[-1],
        "fixed_loss": fixed,
        "losses": losses,
        "grad_norms": norms,
        "trains": all(norm > 0 for norm in norms) and all(map(math.isfinite, losses + norms)),
    }


def asked_vocabulary(asked: Race) -> int:
    """Words of the model."""
    return int(shape(asked.model, tiny=asked.tiny)["vocab_size"])


def _fixed_loss(trainer: Any, rows: list[list[int]]) -> float:
    """Mean loss over the tokens of some rows, by the contestant's own collator, precision and attention."""
    trainer.model.eval()
    batch = trainer._prepare_inputs(trainer.data_collator([{"input_ids": row, "labels": row} for row in rows]))
    with torch.no_grad(), torch.autocast(trainer.args.device.type, torch.bfloat16, enabled=trainer.args.bf16):
        loss = float(trainer.compute_loss(trainer.model, dict(batch)))
    trainer.model.train()
    return loss


def _model(asked: Race, device: str, dtype: str) -> Any:
    """The model with random weights, those of the same seed in each dtype, or in 4 bits."""
    from .worker import in_four_bits

    config = AutoConfig.for_model(**shape(asked.model, tiny=asked.tiny))
    torch.manual_seed(_SEED)
    with torch.device(device):
        # Drawn in bf16 for all, so that they are the same numbers.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if asked.adapter == "qlora":
        return in_four_bits(model, config, torch.bfloat16, device)
    return model.to(getattr(torch, dtype))


def _adapter(asked: Race) -> Any:
    if asked.adapter == "none":
        return None
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


def _same(asked: Race, device: str, folder: str) -> dict[str, Any]:
    """Trainer arguments of all."""
    return {
        "output_dir": folder,
        "use_cpu": device == "cpu",
        "learning_rate": 1e-5,
        "max_steps": sum(asked.steps),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": _SEED,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def _trl(asked: Race, name: str, device: str, folder: str, dataset: Any, counts: list[int]) -> Any:
    """TRL's trainer: as `SFTTrainer(model, train_dataset=...)` has it, or as an expert would set it."""
    from trl import SFTConfig, SFTTrainer

    flash = importlib.util.find_spec("flash_attn") is not None
    chosen: dict[str, Any] = {"max_length": asked.longest, "gradient_accumulation_steps": 2}
    if name == DOCS:  # batch 8, bf16 autocast over weights as they are loaded by name: float32
        model = _model(asked, device, "float32")
    else:
        model = _model(asked, device, "bfloat16")
        chosen |= {"bf16": True, "optim": "adamw_torch_fused", "gradient_checkpointing": _is_large(asked)}
        chosen |= {"per_device_train_batch_size": 8, "dataloader_num_workers": 0 if device == "cpu" else 2}
    if name == TUNED:
        chosen["train_sampling_strategy"] = "group_by_length"
    if name == TUNED_PACKED:
        packed = round(sum(counts) / asked.longest / sum(asked.steps)) or 1
        many = 2 if flash and packed > 1 else 1  # SDPA's mask grows with the square of a batch
        chosen |= {"packing": True, "per_device_train_batch_size": many}
        chosen |= {"gradient_accumulation_steps": max(1, packed // many)}
        dataset = _packed(dataset, asked.longest)
        if flash:
            model.set_attn_implementation("flash_attention_2")
    args = SFTConfig(**_same(asked, device, folder) | chosen)
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        processing_class=load_tokenizer(locate("builtin:small").location),
        peft_config=_adapter(asked),
    )


def _is_large(asked: Race) -> bool:
    return asked.model == LARGE


def _packed(dataset: Any, length: int) -> Any:
    from trl import pack_dataset

    return pack_dataset(dataset, length, "bfd")


def _ours(asked: Race, name: str, device: str, folder: str, dataset: Any, counts: list[int]) -> Any:
    """What the plan chooses for a recipe that leaves all of it out, but for the weights' dtype of full fine-tuning."""
    from trl import SFTConfig, SFTTrainer

    choices = _chosen(asked, device, counts)
    training = choices.training()
    made = speed_of(choices)
    plan = Plan.model_construct(
        training=training,
        model=_facts(asked),
        speed=Speed(attention=made.attention, kernels=made.kernels, compile="on" if name == COMPILED else "off"),
    )
    model = _model(asked, device, "bfloat16")
    speed.set_up(model, plan)
    args = SFTConfig(
        **_same(asked, device, folder) | {"optim": "adamw_torch_fused", "max_length": asked.longest} | training
    )
    tokenizer = load_tokenizer(locate("builtin:small").location)
    trainer = SFTTrainer(
        model=model,
        args=args,
        data_collator=speed.end_to_end(args, model, tokenizer),
        train_dataset=_packed(dataset, asked.longest) if training["packing"] else dataset,
        processing_class=tokenizer,
        peft_config=_adapter(asked),
        callbacks=speed.callbacks(plan),
    )
    speed.check_apart(trainer, plan)
    return trainer


def _chosen(asked: Race, device: str, counts: list[int]) -> Choices:
    recipe = build_recipe({"model": asked.model, "data": {"train": "rows"}, "adapter": {"kind": asked.adapter}})
    total, most = sum(counts), max(counts)
    spread = Lengths(
        rows=len(counts),
        min=min(counts),
        mean=total / len(counts),
        median=round(statistics.median(counts)),
        p90=most,
        p95=most,
        p99=most,
        max=most,
        total=total,
    )
    rows = Rows(
        layout="text",
        loss_on="all",
        train=[{}] * len(counts),
        eval=[],
        test=[],
        lengths=TokenLengths(total=spread),
        token_counts=counts,
    )
    choices = Choices({})
    choices.choose("max_length", asked.longest, "")
    hardware = local_hardware()
    assert hardware.device == device
    choose_fast(choices, recipe, rows, _facts(asked), hardware, dtype="bfloat16")
    return choices
