"""How records look in the terminal."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..records import Check, Comparison, DataReport, EvalReport, LabelAudit, Manifest, Plan, Receipt, RunRecord
from .output import Output, safe

_KEY_CHOICES = {
    "model.dtype",
    "max_length",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "packing",
    "gradient_checkpointing",
    "save_steps",
    "eval_steps",
}


def show_data(output: Output, report: DataReport) -> None:
    """A data report: what it is, verdicts, columns, lengths, and the label audit."""
    usable = f", {report.rows:,} of them usable" if report.rows_invalid else ""
    rows = report.rows + report.rows_invalid
    output.show(f"[bold]{safe(report.source)}[/]  {rows:,} rows{usable}, layout {report.layout}\n")
    output.table("Verdict", ("method", "status", "reason"), [(v.method, v.status, v.reason) for v in report.verdicts])
    for verdict in report.verdicts:
        if verdict.status == "NEEDS MAPPING" and verdict.mapping:
            mapping = yaml.safe_dump(
                {"mapping": verdict.mapping}, default_flow_style=True, allow_unicode=True, width=1000
            )
            output.show("In the recipe:")
            output.show(f"data: {safe(mapping)}")
    output.table(
        "Columns",
        ("name", "type", "nulls", "example"),
        [(column.name, column.type, f"{column.nulls:,}", column.example) for column in report.columns],
    )
    if report.lengths is not None:
        parts = (
            ("prompt", report.lengths.prompt),
            ("answer", report.lengths.completion),
            ("whole row", report.lengths.total),
        )
        output.table(
            f"Tokens under {report.model}",
            ("", "median", "p95", "p99", "longest", "total"),
            [(n, p.median, p.p95, p.p99, p.max, f"{p.total:,}") for n, p in parts if p is not None],
        )
    if report.audit is not None:
        show_audit(output, report.audit)


def show_audit(output: Output, audit: LabelAudit) -> None:
    """What is really trained on, with the first rows' masks."""
    with_stop = f"{audit.rows_kept - audit.rows_without_stop:,} of {audit.rows_kept:,}"
    bos = ", ".join(f"{rows:,} rows with {count}" for count, rows in audit.bos_per_row.items())
    output.table(
        f"Label audit ({audit.prepared_by})",
        ("", ""),
        [
            ("loss on", audit.loss_on),
            ("tokens trained", f"{audit.trained_tokens:,} of {audit.tokens:,} ({audit.trained_percent:.1f}%)"),
            ("rows that train a stop token", f"{with_stop} ({', '.join(audit.stop_tokens)})"),
            (
                "rows cut or dropped",
                f"{audit.rows_cut:,} cut at {audit.max_length}, {audit.rows - audit.rows_kept:,} dropped",
            ),
            ("BOS tokens", bos),
        ],
    )
    trained, masked = ("[black on green]{}[/]", "[dim]{}[/]") if output.coloured else ("{{+{}+}}", "{}")
    for row in audit.preview:
        spans = "".join((trained if span.trained else masked).format(safe(span.text)) for span in row.spans)
        output.show(f"row {row.row}, {trained.format('trained')} and {masked.format('masked')}:\n{spans}\n")


def show_plan(output: Output, plan: Plan, *, brief: bool = False) -> None:
    """A plan: sizes, and choices with their reasons; `brief` shows those that matter most."""
    what = f"LoRA r={plan.lora['r']}" if plan.lora else "all weights"
    share = plan.parameters_trained / plan.parameters
    test = plan.test.rows if plan.test else 0
    output.table(
        "Plan",
        ("", ""),
        [
            ("model", f"{plan.model.name} ({plan.model.architecture}, {plan.parameters:,} parameters)"),
            ("trains", f"{what}: {plan.parameters_trained:,} parameters ({share:.1%})"),
            ("data", f"{plan.train.rows:,} rows to train, {test:,} to compare; loss on {plan.loss_on}"),
            ("steps", f"{plan.steps:,} ({plan.epochs:.3g} epochs, {plan.tokens_per_step:,} tokens per step)"),
            ("machine", f"{plan.hardware.device}, {plan.hardware.name}, {plan.hardware.cores} cores"),
            ("memory", f"{_size(plan.memory.state)} for weights, gradients and optimizer; activations come on top"),
        ],
    )
    rows = [(c.name, _short(c.value), c.reason) for c in plan.choices if not brief or c.name in _KEY_CHOICES]
    output.table("Choices", ("name", "value", "reason"), rows)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    if record.error:
        rows.append(("error", record.error))
    output.table(f"Run {record.id}", ("", ""), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def show_evaluation(output: Output, report: EvalReport) -> None:
    """Tuned against base."""
    output.table(
        f"Tuned against base on {report.rows:,} held-out rows ({report.split})",
        ("metric", "base", "tuned", "difference", "95% interval", "p"),
        [_comparison(comparison) for comparison in report.comparisons],
    )
    if report.fixed or report.broken:
        output.show(f"{report.fixed:,} rows fixed, {report.broken:,} broken.\n")


def _comparison(item: Comparison) -> tuple[str, ...]:
    interval = f"{_signed(item.interval.low)} to {_signed(item.interval.high)}" if item.interval else "-"
    p_value = "-" if item.p_value is None else f"{item.p_value:.1e}" if item.p_value < 1e-3 else f"{item.p_value:.3f}"
    return item.metric, _plain(item.base), _plain(item.tuned), _signed(item.difference), interval, p_value


def _plain(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 1000 else f"{value:+.3g}"


def show_export(output: Output, manifest: Manifest) -> None:
    """Exported files and their checks."""
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
