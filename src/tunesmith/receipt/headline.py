"""The four lines a reader needs first: is it better, did training end, were the labels right, is the export proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..records import Comparison, EvalReport, LabelAudit, Receipt, units
from ..words import counted
from . import text

Tone = Literal["good", "bad", "unsure"]


@dataclass(frozen=True)
class Line:
    """One verdict: how it is meant, in how few words, and what it rests on."""

    tone: Tone
    title: str
    detail: str

    @property
    def mark(self) -> str:
        """The tone as a sign, for readers and printers without colour."""
        return {"good": "✓", "bad": "✗", "unsure": "!"}[self.tone]


def outcome(receipt: Receipt) -> Line:
    """Tuned against base, on the primary metric."""
    if receipt.evaluation is None:
        why = (
            "No evaluation was run yet (tunesmith evaluate)." if receipt.plan.test else "No rows were held out (E008)."
        )
        return Line("unsure", "Not compared with its base", why)
    return compared(receipt.evaluation)


def compared(report: EvalReport) -> Line:
    """What an evaluation shows: the primary metric first, then what was lost elsewhere."""
    from ..evaluate.verdict import lost  # loads numpy, which a command's help doesn't need

    judged = report.judged
    if judged is None:
        return Line("bad", "Could not be compared with its base", "See the findings of the evaluation.")
    detail = f"{units.metric(judged)} on {judged.rows:,} held-out rows: {units.change(judged, judged.difference)}"
    if judged.interval is not None:
        detail += f" ({judged.interval.level:.0%} interval {units.interval(judged)})"
    worse = lost(report, judged)
    if worse:
        detail += f"; worse at {', '.join(map(units.metric, worse))}"
    return Line(*_verdict(report, judged, bool(worse)), detail)


def _verdict(report: EvalReport, judged: Comparison, worse: bool) -> tuple[Tone, str]:
    from ..evaluate.verdict import too_few

    base = "the other run" if report.base and report.base.kind == "run" else "its base"
    if too_few(judged):
        return "unsure", f"Too few {'groups of' if judged.groups else 'held-out'} rows to tell"
    if not judged.significant:
        return "unsure", f"No significant difference from {base}"
    if judged.gain(judged.difference) <= 0:
        return "bad", f"Worse than {base}"
    if worse:
        return "bad", f"Better than {base}, but worse elsewhere"
    if report.conclusion is not None and report.conclusion.met is False:
        return "unsure", f"Better than {base}, but not as was asked"
    return "good", f"Better than {base}"


def training(receipt: Receipt) -> Line:
    """Whether the run came to its end."""
    run = receipt.run
    steps = f"{run.step:,} of {counted(run.steps, 'step')} in {text.duration(run.seconds)}"
    loss = f", last training loss {units.number(run.loss)}" if run.loss is not None else ""
    if run.status == "done":
        return Line("good", "Trained to the end", steps + loss)
    if run.status == "failed":
        return Line("bad", "Training failed", f"{steps}: {run.error or 'no reason recorded'}")
    words = {"prepared": "Not trained yet", "running": "Still training", "stopped": "Training was stopped"}
    return Line("unsure", words[run.status], steps + loss)


def audit(receipt: Receipt) -> LabelAudit | None:
    """The label audit of the rows that were trained on; before training, of the data."""
    return receipt.run.audit or receipt.data.audit


def labels(receipt: Receipt) -> Line:
    """Whether the loss was on the right tokens."""
    found = audit(receipt)
    if found is None:
        return Line("unsure", "Labels not audited", "No record of which tokens were trained.")
    detail = f"{found.trained_percent:.1f} % of {found.tokens:,} tokens trained, loss on {loss_on(found)}"
    if found.rows_without_stop:
        rows = f"no stop token is trained in {found.rows_without_stop:,} of {counted(found.rows_kept, 'row')}"
        return Line("bad", "Stop tokens are missing", f"{rows}; {detail}")
    if found.rows_kept < found.rows or found.rows_cut:
        lost = f"{counted(found.rows - found.rows_kept, 'row')} dropped, {found.rows_cut:,} cut by the trainer"
        return Line("unsure", "Rows were cut or dropped", f"{lost}; {detail}")
    return Line("good", "Every row trains its stop token", detail)


def loss_on(found: LabelAudit) -> str:
    """What the loss was on, in words."""
    words = {
        "completion": "the completion",
        "assistant": "the assistant's turns",
        "all": "all tokens",
        "score": "one score for each whole row",
    }
    return words[found.loss_on]


def export(receipt: Receipt) -> Line:
    """Whether the exported files are proven to be the model that was trained."""
    manifest = receipt.export
    if manifest is None:
        return Line("unsure", "Not exported", "No files were written yet (tunesmith export).")
    failed = sum(not check.passed for check in manifest.checks)
    if failed or not manifest.passed:
        return Line("bad", "Export failed its checks", f"{failed} of {len(manifest.checks)} checks failed")
    if not manifest.artifacts:
        return Line("unsure", "Nothing to merge", "The result is the adapter in model/, to be used with PEFT.")
    unproven = [artifact.path for artifact in manifest.artifacts if not artifact.verified]
    if unproven or not manifest.checks:
        return Line("unsure", "Exported, not verified", f"Unverified: {', '.join(unproven) or 'all'}")
    files, checks = len(manifest.artifacts), len(manifest.checks)
    return Line(
        "good", "Export verified", f"{files} files, {checks} checks passed, by {manifest.verifier or 'tunesmith'}"
    )
