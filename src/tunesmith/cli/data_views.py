"""How a data report looks in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ..receipt.data_page import figures, fragment, saving
from ..records import DataReport, Histogram, LabelAudit
from ..words import counted
from .output import Output, safe

_BAR = 32
_COLUMNS = 50


def show_data(output: Output, report: DataReport, *, brief: bool = False) -> None:
    """A data report: what it is, verdicts, layouts, columns, lengths, the label audit and quality.

    `brief` leaves out what isn't about the report's own method.
    """
    usable = f", {report.rows:,} of them usable for {report.method}" if report.rows_invalid else ""
    rows = report.rows + report.rows_invalid
    output.show(f"[bold]{safe(report.source)}[/]  {counted(rows, 'row')}{usable}, layout {report.layout}\n")
    verdicts = [verdict for verdict in report.verdicts if not brief or verdict.method == report.method]
    output.table("Verdict", ("method", "status", "reason"), [(v.method, v.status, v.reason) for v in verdicts])
    if report.recommended and not brief:
        output.table("", ("", ""), [("Recommended", f"{report.recommended}. {report.recommended_reason}")])
    _show_fragments(output, report, brief=brief)
    _show_rows(output, report)
    if report.lengths is not None:
        _show_lengths(output, report)
    if report.audit is not None:
        show_audit(output, report.audit)
    if report.quality is not None:
        output.table("Quality", ("", ""), figures(report.quality))


def _show_fragments(output: Output, report: DataReport, *, brief: bool) -> None:
    """What the recipe must say for each method that needs it, and for the report's own the same in Python."""
    methods: dict[str, list[str]] = {}
    for verdict in report.verdicts:
        if not brief or verdict.method == report.method:
            methods.setdefault(fragment(verdict), []).append(verdict.method)
    for said, names in methods.items():
        if said:
            output.show(f"In the recipe, for {', '.join(names)}:\n{safe(said)}\n")
    own = next((verdict for verdict in report.verdicts if verdict.method == report.method), None)
    if own is not None and own.code and own.status != "READY" and not brief:
        output.show(f"The same in Python, for {report.method}:\n\n{safe(own.code)}\n")


def _show_rows(output: Output, report: DataReport) -> None:
    if len(report.composition) > 1:
        output.table(
            "Layouts",
            ("layout", "rows", "share", "such as row"),
            [(c.layout, f"{c.rows:,}", f"{c.share:.1%}", ", ".join(map(str, c.examples))) for c in report.composition],
        )
    if report.features:
        output.table("Features", ("", "rows"), [(name, f"{rows:,}") for name, rows in report.features.items()])
    shown = report.columns[:_COLUMNS]
    columns = [(column.name, column.type, f"{column.nulls:,}", column.example) for column in shown]
    if len(shown) < len(report.columns):
        columns.append((f"and {len(report.columns) - len(shown):,} more", "", "", ""))
    output.table("Columns", ("name", "type", "nulls", "example"), columns)


def _show_lengths(output: Output, report: DataReport) -> None:
    lengths = report.lengths
    assert lengths is not None
    parts = (("prompt", lengths.prompt), ("answer", lengths.completion), ("whole row", lengths.total))
    output.table(
        f"Tokens under {report.model}",
        ("", "median", "p95", "p99", "longest", "total"),
        [(n, p.median, p.p95, p.p99, p.max, f"{p.total:,}") for n, p in parts if p is not None],
    )
    if report.histogram is not None:
        limit = report.audit.max_length if report.audit else None
        output.table("Rows by tokens", ("", "", ""), _bars(report.histogram, limit))
    facts = []
    if report.max_length is not None:
        facts.append(("recommended max_length", f"{report.max_length:,}: {report.max_length_reason}"))
    if report.packing is not None:
        into = counted(report.packing.sequences, "sequence")
        packed = f"{counted(report.packing.rows, 'row')} into {into}, {report.packing.fill:.0%} full"
        facts.append(("packing", f"{packed}; {saving(report.packing)}"))
    if report.tokens_per_epoch is not None:
        facts.append(("tokens trained in one epoch", f"{report.tokens_per_epoch:,}"))
    output.table("", ("", ""), facts)


def _bars(histogram: Histogram, limit: int | None) -> Iterator[tuple[str, str, str]]:
    """Lines of a histogram, the bin in which rows begin to be cut marked."""
    most = max(histogram.rows)
    for low, high, rows in zip(histogram.edges, histogram.edges[1:], histogram.rows, strict=False):
        mark = f"< max_length {limit:,}" if limit is not None and low <= limit < high else ""
        name = f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
        yield name, "\u2588" * max(round(_BAR * rows / most), rows > 0), f"{rows:,} {mark}"


def show_audit(output: Output, audit: LabelAudit) -> None:
    """What is really trained on, with the first rows' masks."""
    with_stop = f"{audit.rows_kept - audit.rows_without_stop:,} of {audit.rows_kept:,}"
    bos = ", ".join(f"{counted(rows, 'row')} with {count}" for count, rows in audit.bos_per_row.items())
    dropped = audit.rows - audit.rows_kept
    facts = [
        ("loss on", audit.loss_on),
        ("tokens trained", f"{audit.trained_tokens:,} of {audit.tokens:,} ({audit.trained_percent:.1f}%)"),
        ("rows that train a stop token", f"{with_stop} ({', '.join(audit.stop_tokens)})"),
        ("rows cut or dropped", f"{audit.rows_cut:,} cut at {audit.max_length}, {dropped:,} dropped"),
        ("BOS tokens", bos),
    ]
    if lost := audit.cutting:
        answers = f"{counted(lost.answers_cut, 'answer')} cut, {lost.answers_gone:,} gone"
        answers += f", {counted(lost.stops_gone, 'stop token')} gone"
        facts.append(("lost by cutting", f"{counted(lost.answer_tokens, 'token')} to train on: {answers}"))
    if pairs := audit.pairs:
        sides = f"{pairs.chosen_tokens:,} tokens in chosen, {pairs.rejected_tokens:,} in rejected answers"
        facts.append(("pairs", f"{sides}, {counted(pairs.equal, 'pair')} equal"))
    output.table(f"Label audit ({audit.prepared_by})", ("", ""), facts)
    trained, masked = ("[black on green]{}[/]", "[dim]{}[/]") if output.coloured else ("{{+{}+}}", "{}")
    for row in audit.preview:
        spans = "".join((trained if span.trained else masked).format(safe(span.text)) for span in row.spans)
        why = f" ({safe(row.why)})" if row.why else ""
        output.show(f"row {safe(row.row)}{why}, {trained.format('trained')} and {masked.format('masked')}:\n{spans}\n")
