"""The adapter merged into its base in float32, and the proof that the merged model is the tuned one."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..files import disk_errors
from ..models.load import is_adapter, load_base, load_model, load_tuned, load_under, put_on
from ..progress import Progress
from ..records import Check, Finding, ModelFacts, Plan, Severity
from ..rules import finding
from .compare import LIMITS, distributions, divergence
from .probes import Row

if TYPE_CHECKING:
    from torch import Tensor

MERGED = "merged"
FLOOR: Final = float(LIMITS["merged"]["floor"])


@dataclass(frozen=True)
class Merge:
    """A whole tuned model and what was found out about it.

    Attributes:
        folder: Where it is.
        model: It, loaded in float32.
        expected: Its next-token distributions at the positions of the held-out rows.
        effect: KL divergence of tuned from base (nats), that is what training changed; None without held-out rows.
        checks: Comparisons with base and adapter.
        findings: What else was found.
    """

    folder: Path
    model: Any
    expected: Tensor | None
    effect: float | None
    checks: list[Check]
    findings: list[Finding] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """Largest KL divergence (nats) that a faithful copy may have: no more than half of what training changed.

        It is never below what rounding to f16 alone brings about.
        """
        limit = float(LIMITS["merged"]["kl"])
        return limit if self.effect is None else max(min(limit, self.effect / 2), FLOOR)

    @property
    def faint(self) -> bool:
        """Whether training changed so little that a copy without it could stay below `limit`."""
        return self.effect is not None and self.effect < 2 * FLOOR


def merge(plan: Plan, result: Path, tokenizer: Any, rows: Sequence[Row], target: Path, tell: Progress) -> Merge:
    """Make `target/merged` of the adapter in `result`; a result that is a whole model is taken as it is.

    An adapter that was trained on a base in 4 bits is merged into the base's own weights.

    Raises:
        EnvironmentLacksError: the disk is full or not writable.
        UsageError: base or result can't be loaded.
    """
    import torch

    facts = plan.model
    tell("comparing base and tuned", 0, 3)
    base = distributions(load_base(facts, dtype=torch.float32), rows) if rows else None
    tell("comparing base and tuned", 1, 3)
    tuned_model = load_tuned(facts, result, dtype=torch.float32)
    tuned = distributions(tuned_model, rows) if rows else None
    effect = None if base is None or tuned is None else divergence(tuned, base)
    checks = [] if effect is None else [_changed(effect)]
    if not is_adapter(result):
        return Merge(result, tuned_model, tuned, effect, checks)
    folder = target / MERGED
    _write(tuned_model, facts, result, tokenizer, folder)
    del tuned_model
    findings = [] if tuned is None or effect is None else list(_rounding(plan, result, rows, tuned, effect))
    tell("comparing base and tuned", 2, 3)
    merged_model = load_model(folder, dtype=torch.float32)
    merged = distributions(merged_model, rows) if rows else None
    found = Merge(folder, merged_model, merged, effect, checks, findings)
    if tuned is not None and merged is not None:
        what = "mean KL divergence of merged from base with adapter, nats per token"
        checks.append(_same(divergence(tuned, merged), found.limit, what))
    tell("comparing base and tuned", 3, 3)
    return found


def _changed(effect: float) -> Check:
    limit = float(LIMITS["merged"]["effect"])
    return Check(
        name="training changed the model",
        target=MERGED,
        passed=effect > limit,
        value=effect,
        threshold=limit,
        what="mean KL divergence of tuned from base, nats per token; must be above",
        code="X009",
    )


def _same(value: float, limit: float, what: str) -> Check:
    return Check(
        name="merged is the adapter's model",
        target=MERGED,
        passed=value <= limit,
        value=value,
        threshold=limit,
        what=f"{what}; must not be above",
        code="X008",
    )


def _rounding(plan: Plan, result: Path, rows: Sequence[Row], tuned: Tensor, effect: float) -> Iterator[Finding]:
    """X017, what a 4-bit base's adapter loses on the full weights: a warning from half of what training changed."""
    import torch

    if plan.quantization is None:
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        reason = "bitsandbytes isn't installed here"
        yield finding("X010", "export", target=MERGED, reason=f"what the base's rounding to 4 bits meant ({reason})",
                      remedy="pip install bitsandbytes, then export again.")  # fmt: skip
        return
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(**plan.quantization)
    trained = put_on(load_under(plan.model, dtype=torch.float32, quantization_config=quantization), result)
    value = divergence(distributions(trained, rows), tuned)
    severity: Severity = "warning" if value > effect / 2 else "note"
    yield finding("X017", "export", severity=severity, value=value, effect=effect)


def merge_scores(plan: Plan, result: Path, tokenizer: Any, rows: Sequence[Row], target: Path) -> Merge:
    """`merge` for a reward model: it and its merged copy give the same scores.

    There is no base to compare with: its score has random weights.
    """
    import torch

    tuned = load_tuned(plan.model, result, head="score", dtype=torch.float32)
    before = _scores(tuned, rows)
    if not is_adapter(result):
        return Merge(result, tuned, None, None, [])
    folder = target / MERGED
    _write(tuned, plan.model, result, tokenizer, folder)
    merged = load_model(folder, head="score", dtype=torch.float32)
    limit = float(LIMITS["merged"]["score"])
    value = float((_scores(merged, rows) - before).abs().max() / before.abs().max().clamp(min=1)) if rows else None
    checks = [] if value is None else [_same(value, limit, "largest difference of scores, over the largest score")]
    return Merge(folder, merged, None, None, checks)


def _scores(model: Any, rows: Sequence[Row]) -> Tensor:
    """A reward model's scores, float32 [rows]."""
    import torch

    model.eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([row.whole])).logits[0, :1].float() for row in rows])


def _write(tuned: Any, facts: ModelFacts, result: Path, tokenizer: Any, folder: Path) -> None:
    """Merge, cast to the base's stored dtype and save with tokenizer and generation settings."""
    merged = tuned.merge_and_unload()
    if merged.can_generate():
        _set_stop_tokens(merged, result, tokenizer)
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            merged.to(_dtype(facts.dtype)).save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            _same_permissions(partial)
            partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _set_stop_tokens(model: Any, result: Path, tokenizer: Any) -> None:
    """Take the generation settings saved with the result, if any; the tokenizer's EOS always stops."""
    from transformers import GenerationConfig

    if (result / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(str(result))
    settings = model.generation_config
    stops = settings.eos_token_id
    stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    if tokenizer.eos_token_id is not None:
        stops = list(dict.fromkeys([tokenizer.eos_token_id, *stops]))
    settings.eos_token_id = stops[0] if len(stops) == 1 else stops or None


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name) if name in ("float32", "bfloat16", "float16") else torch.float32


def _same_permissions(folder: Path) -> None:
    """safetensors makes weight files private; a result is meant to be read like its config."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.iterdir():
        file.chmod(mode)
