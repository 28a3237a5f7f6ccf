"""How records look in the terminal."""

from __future__ import annotations

from pathlib import Path

from ..records import Check, Manifest, Receipt, RunRecord
from .evaluation_view import show_evaluation
from .output import Output, safe


def show_run(output: Output, folder: Path, record: RunRecord) -> None:
    """A run's record."""
    speed = record.tokens / record.seconds if record.seconds else 0
    rows = [
        ("folder", str(folder)),
        ("status", record.status),
        ("step", f"{record.step:,} of {record.steps:,}"),
        ("loss", f"{_number(record.loss)} (held-out {_number(record.eval_loss)})"),
        ("time", f"{record.seconds:.1f} s in training, {record.tokens:,} tokens, {speed:,.0f} tokens/s"),
        ("memory", f"{_size(record.peak_memory)} at most" if record.peak_memory else "not measured yet"),
    ]
    if record.resumed_from:
        rows.append(("resumed", f"from step {', '.join(map(str, record.resumed_from))}"))
    for back in record.rollbacks:
        rows.append(("went back", f"from step {back.step} to {back.to} ({back.code}), rate x {back.factor:g}"))
    if record.error:
        rows.append(("error", record.error))
    output.table(f"Run {record.id}", ("", ""), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def show_export(output: Output, manifest: Manifest) -> None:
    """Exported files and their checks."""
    if not manifest.artifacts and not manifest.checks:
        output.show("Nothing to merge: the result is the adapter in the run's folder model/.\n")
        return
    output.table(
        "Exported",
        ("file", "kind", "dtype", "size", "verified"),
        [(a.path, a.kind, a.dtype, _size(a.bytes), "yes" if a.verified else "NO") for a in manifest.artifacts],
    )
    output.table(
        f"Checks ({manifest.verifier or 'no llama.cpp here'})",
        ("file", "check", "result", "measured"),
        [(c.target, c.name, "passed" if c.passed else "FAILED", _measured(c)) for c in manifest.checks],
    )


def _measured(check: Check) -> str:
    value = "" if check.value is None else f"{check.value:.3g} "
    limit = f" {check.threshold:.3g}" if check.threshold else ""
    return f"{value}{check.what}{limit}"


def show_receipt(output: Output, folder: Path, receipt: Receipt) -> None:
    """The summary that the whole chain ends with."""
    output.show(f"\n[bold]Receipt of {safe(receipt.run.id)}[/]\n")
    show_run(output, folder, receipt.run)
    if receipt.evaluation is not None:
        show_evaluation(output, receipt.evaluation)
    if receipt.export is not None:
        show_export(output, receipt.export)


def _size(size: int) -> str:
    value, units = float(size), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)):
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
