"""How much of a device's peak a training step reaches: drawn from published measurements (tables/efficiency.yaml)."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..records import LinearShape, ModelFacts, ParameterParts
from ..records.cost import Range
from .documents import Documents
from .machines import Device, devices
from .memory.step import Step
from .speed import Pace, implied_efficiency, seconds
from .work import Load, MicroBatch, micro_batch, step_load

_TABLE = Path(__file__).parent / "tables" / "efficiency.yaml"
_FUSED = 0.5  # bytes moved by a stack that fuses elementwise operations, over those of an eager one
_SPREAD = 2.33  # of a normal distribution: 98 in a hundred lie within
LIKELY = Pace(efficiency=1.0, kernel=14e-6, hidden=0.5)
"""Starting a kernel took 13 to 15 us in the two anchors that wait for nothing else (qwen, 256 tokens)."""
FAST, SLOW = Pace(1.0, 7e-6, 1.0), Pace(1.0, 22e-6, 0.0)


@dataclass(frozen=True)
class Anchor:
    """A published measurement of training.

    Attributes:
        name: Source, model, device and method.
        measured: Tokens per second of one device.
        accumulation: Micro-batches per update.
    """

    name: str
    step: Step
    device: Device
    measured: float
    accumulation: int
    fused: bool

    def work(self) -> tuple[MicroBatch, Load]:
        """What the step computes and moves."""
        batch = micro_batch(self.step, Documents.of([self.step.length]))
        load = step_load(self.step, batch)
        if not self.fused:
            return batch, load
        moved = {part: size * (1 if part == "dequantisation" else _FUSED) for part, size in load.moved.items()}
        return batch, replace(load, moved=moved)

    def efficiency(self) -> float | None:
        """The share of the peak that the measurement implies; None when it doesn't depend on it."""
        batch, load = self.work()
        update = seconds(self.step, load, self.device, LIKELY).update
        micro = batch.tokens / self.measured - update / self.accumulation
        return implied_efficiency(self.step, load, self.device, micro, LIKELY)

    def predicted(self, share: Range) -> Range:
        """Tokens per second at these shares of the peak."""
        batch, load = self.work()

        def speed(efficiency: float, pace: Pace) -> float:
            took = seconds(self.step, load, self.device, Pace(efficiency, pace.kernel, pace.hidden))
            return batch.tokens / (took.micro + took.update / self.accumulation)

        return Range(low=speed(share.low, SLOW), likely=speed(share.likely, LIKELY), high=speed(share.high, FAST))


@functools.cache
def _table() -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Any] = yaml.load(_TABLE.read_text(encoding="utf-8"), Loader=loader)
    return table


@functools.cache
def anchors() -> tuple[Anchor, ...]:
    """The measurements that priors are drawn from."""
    return tuple(_anchor(row) for row in _table()["anchors"])


@functools.cache
def checks() -> tuple[Anchor, ...]:
    """Measurements of the same kind that no prior is drawn from."""
    return tuple(_anchor(row) for row in _table()["checks"])


def _anchor(row: dict[str, Any]) -> Anchor:
    several, device = row.get("devices", 1) > 1, devices()[row["gpu"]]
    step = Step(
        model=_model(row["model"], _table()["models"][row["model"]]),
        adapter=row["adapter"],
        rank=16,
        targets=row.get("targets", "all-linear"),
        dtype="bfloat16",
        mixed=True,
        optimizer=row.get("optimizer", "adamw_torch"),
        rows=row["rows"],
        length=row["length"],
        checkpointing="full" if row.get("recompute") else "off",
        attention="flash",
        fused_loss=False,
        devices=row.get("devices", 1),
        sharding="fsdp" if several else "none",
    )
    how = {"none": "full", "lora": "LoRA", "qlora": "QLoRA"}[row["adapter"]] + (", fused" if row.get("fused") else "")
    where = f"{row.get('devices', 1)} x {row['gpu']}"
    return Anchor(
        name=f"{row['source']}: {row['model']} {how}, {row['rows']} x {row['length']}, {where}",
        step=step,
        device=replace(device, bandwidth=row["bandwidth"] * 1e9) if "bandwidth" in row else device,
        measured=row["tokens_per_second"],
        accumulation=row.get("accumulation", 1),
        fused=bool(row.get("fused")),
    )


def _model(name: str, row: dict[str, Any]) -> ModelFacts:
    """Facts of a decoder with these sizes."""
    hidden, inner, layers = row["hidden"], row["intermediate"], row["layers"]
    keys = hidden // row["heads"] * row["kv_heads"]
    experts, used = row.get("experts", (0, 0))
    matrices = row.get("matrices", 3)
    shapes = {
        "q_proj": (hidden, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, hidden),
    }
    if not experts:
        shapes |= {"up_proj": (inner, hidden), "down_proj": (hidden, inner)}
        shapes |= {"gate_proj": (inner, hidden)} if matrices == 3 else {}
    attention, mlp = 2 * hidden * (hidden + keys) * layers, matrices * hidden * inner * layers
    table = hidden * row["vocabulary"]
    return ModelFacts(
        name=name,
        location=name,
        architecture="",
        model_type="",
        parameters=attention + mlp * (experts or 1) + 2 * table,
        parts=ParameterParts(
            embedding=table, attention=attention, mlp=0 if experts else mlp, experts=mlp * experts, head=table
        ),
        linears=[
            LinearShape(name=part, out_features=rows, in_features=columns, count=layers)
            for part, (rows, columns) in shapes.items()
        ],
        expert_count=experts,
        expert_active=used,
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        heads=row["heads"],
        kv_heads=row["kv_heads"],
        head_dim=hidden // row["heads"],
        vocabulary=row["vocabulary"],
        context=0,
        dtype="bfloat16",
        tied=False,
        has_template=False,
        bytes=0,
    )


@functools.cache
def expected_efficiency(family: str) -> Range:
    """The share of the peak to expect of a family of devices; by the anchors' scatter 98 runs in a hundred lie within.

    Families of another kind (cpu, apple) have a range stated in the table.
    """
    stated = _table()["stated"].get(family)
    if stated:
        return Range(low=stated[0], likely=stated[1], high=stated[2])
    return _drawn(family, anchors())


def is_measured(family: str) -> bool:
    """Whether the family's share is drawn from measurements, not stated."""
    return family not in _table()["stated"]


def left_out(anchor: Anchor) -> Range:
    """The same for an anchor's family, drawn from all the others."""
    return _drawn(anchor.device.family, [other for other in anchors() if other is not anchor])


def _drawn(family: str, known: Iterable[Anchor]) -> Range:
    """A prior for one family from measurements of several.

    Logarithms of the shares are taken as normal about their family's mean, and these means as normal about a common
    one; the family's own measurements count the more, the more of them there are (empirical Bayes, as in Efron and
    Morris 1975). The shares take up what the counts of bytes and kernels miss, so that the upper end may be above 1.
    """
    groups: dict[str, list[float]] = {}
    for anchor in known:
        share = anchor.efficiency()
        if share is not None:
            groups.setdefault(anchor.device.family, []).append(math.log(share))
    within, between = _variances(groups)
    centre = statistics.fmean(statistics.fmean(group) for group in groups.values())
    own = groups.get(family, [])
    weight = len(own) * between / (len(own) * between + within)
    mean = weight * statistics.fmean(own) + (1 - weight) * centre if own else centre
    # A new measurement's variance: its own scatter, and what isn't known of its family's mean.
    spread = _SPREAD * math.sqrt(within + between * (1 - weight) * (1 + 1 / len(groups)))
    return Range(low=math.exp(mean - spread), likely=math.exp(mean), high=math.exp(mean + spread))


def _variances(groups: dict[str, list[float]]) -> tuple[float, float]:
    """Variance within families, pooled, and between their means, less what scatter within makes of it."""
    free = sum(len(group) - 1 for group in groups.values())
    within = sum((share - statistics.fmean(group)) ** 2 for group in groups.values() for share in group) / free
    noise = statistics.fmean(within / len(group) for group in groups.values())
    means = [statistics.fmean(group) for group in groups.values()]
    return within, max(statistics.variance(means) - noise, within / 10)
