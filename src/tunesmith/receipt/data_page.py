"""The data report as a page: one self-contained HTML file, without scripts and without anything from elsewhere."""

from __future__ import annotations

from pathlib import PurePath

from ..data.formats import fragment as in_recipe
from ..records import DataReport, Packing, Quality, Verdict, units
from ..words import counted
from . import chart, text
from .headline import Line
from .html import environment

_ORDER = ("error", "warning", "note")
_WORTH_SAYING = 1.05


def render(report: DataReport) -> str:
    """The report as an HTML page; all text of the data is escaped, and characters that hide text are spelt out."""
    limit = report.audit.max_length if report.audit else None
    histogram = chart.length_histogram(report.histogram, limit) if report.histogram else None
    page = environment().get_template("data.html.jinja")
    return page.render(
        data=report.model_copy(
            update={"findings": sorted(report.findings, key=lambda found: _ORDER.index(found.severity))}
        ),
        source=PurePath(report.source).name or report.source,
        total=report.rows + report.rows_invalid,
        line=headline(report),
        fragments={verdict.method: fragment(verdict) for verdict in report.verdicts},
        histogram=histogram,
        limit=limit,
        saving=saving(report.packing) if report.packing else "",
        quality=figures(report.quality) if report.quality else [],
    )


def headline(report: DataReport) -> Line:
    """Whether the report's method can train on the data, in one line."""
    verdict = next((one for one in report.verdicts if one.method == report.method), None)
    if verdict is None or verdict.status == "INCOMPATIBLE":
        return Line("bad", f"Not for {report.method}", verdict.reason if verdict else "It was not judged.")
    errors = sum(finding.severity == "error" for finding in report.findings)
    if verdict.status == "NEEDS MAPPING":
        return Line("unsure", f"{report.method} needs a mapping", verdict.reason)
    if errors:
        return Line("bad", f"{counted(errors, 'error')} to repair", f"Layout {report.layout}: {verdict.reason}")
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    detail = " ".join([verdict.reason, *([f"{counted(warnings, 'warning')}."] if warnings else [])])
    return Line("unsure" if warnings else "good", f"Ready for {report.method}", detail)


def saving(packing: Packing) -> str:
    """What packing brings, in words."""
    if packing.gain < _WORTH_SAYING:
        return "padded batches of 8 rows hold no more tokens"
    return f"padded batches of 8 rows hold {packing.gain:.2f} times as many tokens"


def fragment(verdict: Verdict) -> str:
    """What a recipe must say so that the method can train on the data, as YAML; empty where it needs nothing."""
    said = in_recipe(verdict.mapping, verdict.filter)
    return f"data: {{{said}}}" if said else ""


def figures(quality: Quality) -> list[tuple[str, str]]:
    """The plain figures of a quality record, under readable names; those that don't apply are left out."""
    named = ((name.replace("_", " ").capitalize(), value) for name, value in quality)
    return [(name, _figure(value)) for name, value in named if value not in (None, "", {})]


def _figure(value: float | str | dict[str, int]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text.count(rows)}" for name, rows in value.items())
    return value if isinstance(value, str) else text.count(value) if isinstance(value, int) else units.number(value, 3)
