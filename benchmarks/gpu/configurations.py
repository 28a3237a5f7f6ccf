"""The steps that are measured, and what the plan says of them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from tunesmith.models.facts import model_facts
from tunesmith.models.families import find_known
from tunesmith.models.source import Source
from tunesmith.plan.documents import Documents
from tunesmith.plan.fit import need
from tunesmith.plan.machines import Machine
from tunesmith.plan.memory import Step, estimate
from tunesmith.plan.memory.step import Dtype
from tunesmith.plan.time import Schedule, estimate_time
from tunesmith.records import ModelFacts

Adapter = Literal["none", "lora", "qlora"]
OPTIMIZER = "adamw_torch_fused"
RANK = 16
SMALL, MIDDLE, LARGE = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B"
_TINY = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One training step; the fields are those of a plan's Step, which says what they mean.

    Attributes:
        model: Id in the table of families, whose shapes are taken.
        tiny: Of that model only its architecture is taken.
    """

    model: str
    adapter: Adapter
    rows: int
    length: int
    dtype: Dtype = "bfloat16"
    checkpointing: Literal["off", "full"] = "off"
    padded: bool = False
    tiny: bool = False

    @property
    def name(self) -> str:
        """What tells it from the others."""
        how = {"none": "full", "lora": "LoRA", "qlora": "QLoRA"}[self.adapter]
        marks = {
            "fp32": self.dtype == "float32",
            "recomputed": self.checkpointing == "full",
            "padded": self.padded,
            "tiny": self.tiny,
        }
        words = [f"{self.model.rpartition('/')[2]} {how}, {self.rows} x {self.length:,}"]
        return ", ".join(words + [mark for mark, holds in marks.items() if holds])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row of a micro-batch; where it is padded, every other row has half as many."""
        return [self.length // (2 if self.padded and row % 2 else 1) for row in range(self.rows)]

    def config(self) -> dict[str, Any]:
        """The model's config.json."""
        return shape(self.model, tiny=self.tiny)

    def step(self) -> Step:
        """The step as the plan sees it."""
        return Step(
            model=facts_of(self.model, tiny=self.tiny),
            adapter=self.adapter,
            rank=RANK,
            dtype=self.dtype,
            mixed=True,
            optimizer=OPTIMIZER,
            rows=self.rows,
            length=self.length,
            padded=self.padded,
            checkpointing=self.checkpointing,
        )


def facts_of(model: str, *, tiny: bool) -> ModelFacts:
    """What the plan knows of a model of the table, or of a tiny one of its architecture."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(shape(model, tiny=tiny)), encoding="utf-8")
        return model_facts(Source(model, folder, Path(folder)), planning=True)


def shape(model: str, *, tiny: bool) -> dict[str, Any]:
    """config.json of a model of the table, or of a tiny one of its architecture."""
    known = find_known(model)
    if known is None:
        raise LookupError(f"{model} isn't in the table of families.")
    return dict(known.config) | (_TINY if tiny else {})


# The most telling first, as time may run out: each size, each way, both lengths.
_CHOSEN = (
    Configuration(SMALL, "none", 8, 1024),
    Configuration(LARGE, "lora", 8, 1024, checkpointing="full"),
    Configuration(MIDDLE, "lora", 8, 1024),
    Configuration(LARGE, "none", 2, 4096, checkpointing="full"),
    Configuration(LARGE, "qlora", 8, 1024, checkpointing="full"),
    Configuration(SMALL, "lora", 4, 4096),
    Configuration(MIDDLE, "none", 2, 4096, dtype="float32"),
    Configuration(LARGE, "lora", 2, 4096),
    Configuration(SMALL, "lora", 8, 1024, padded=True),
    Configuration(MIDDLE, "qlora", 4, 4096),
    Configuration(MIDDLE, "none", 4, 4096, checkpointing="full"),
    Configuration(LARGE, "none", 2, 1024, dtype="float32", checkpointing="full"),
    Configuration(LARGE, "qlora", 2, 4096),
)
_TRIED = (
    Configuration(SMALL, "none", 2, 64, tiny=True),
    Configuration(LARGE, "lora", 4, 48, checkpointing="full", padded=True, tiny=True),
)


def chosen(*, tiny: bool, four_bits: bool) -> list[Configuration]:
    """What to measure; QLoRA only where its 4-bit layers are installed."""
    return [one for one in (_TRIED if tiny else _CHOSEN) if four_bits or one.adapter != "qlora"]


def predict(configuration: Configuration, machine: Machine) -> dict[str, Any]:
    """What the plan says of the step: bytes, tokens per second (padding left out), and whether it fits."""
    step = configuration.step()
    memory = estimate(step)
    time = estimate_time(step, machine, Documents.of(configuration.lengths), Schedule(updates=1))
    return {
        "allocated": memory.allocated,
        "reserved": memory.reserved,
        "context": memory.context,
        "fits": need(memory) <= machine.memory,
        "tokens_per_second": time.tokens_per_second.model_dump(),
        "step_seconds": time.step_seconds.model_dump(),
    }
