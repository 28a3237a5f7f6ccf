"""The one place that prints: data to stdout, words to stderr, plain without a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import TunesmithError
from ..records import Event, Finding
from ..rules import FindingsError
from ..words import counted
from .curves import sample_lines

# Control characters (C0 but tab and newline, C1), line separators, the bidirectional overrides, which can disguise
# text, and the halves of surrogate pairs that stand for undecodable bytes in file names.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
_PLAIN_WIDTH = 100


def harmless(text: object) -> str:
    """Text from data, models or logs without what a terminal would act on."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def safe(text: object) -> str:
    """Harmless text inside rich markup."""
    return escape(harmless(text))


def one_line(text: object) -> str:
    """Safe text in which line breaks are spaces, so that data can't forge a line of ours."""
    return safe(" ".join(str(text).splitlines()))


class _Console(Console):
    """A console that leaves a closed pipe to the caller; rich would exit with code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _width(stream: TextIO) -> int | None:
    """The width for tables: rich's own finding, or where there is neither terminal nor COLUMNS a little more."""
    return None if stream.isatty() or os.environ.get("COLUMNS") else _PLAIN_WIDTH


def _plain(record: BaseModel) -> Any:
    """What a record holds, for JSON; NaN and infinity as its own file has them, since JSON has neither."""
    return json.loads(record.model_dump_json())


class Output:
    """Prints for one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.data = _Console(soft_wrap=True, highlight=False, emoji=False, width=_width(sys.stdout))
        self.words = _Console(stderr=True, highlight=False, emoji=False, width=_width(sys.stderr))

    @property
    def coloured(self) -> bool:
        """Whether the answer is shown in colour; where not, what colour would say needs signs."""
        return self.data.color_system is not None and not self.data.no_color

    def record(self, record: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
        """Print a record, a list of records or a JSON object as JSON on stdout."""
        if isinstance(record, BaseModel):
            value: Any = _plain(record)
        elif isinstance(record, dict):
            value = record
        else:
            value = [_plain(item) for item in record]
        # ASCII: characters that act on a terminal, or that its encoding lacks, stay escaped.
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def say(self, text: str) -> None:
        """A line for people, on stderr; may hold rich markup, so escape foreign text with `safe`."""
        self.words.print(text, soft_wrap=not self.words.is_terminal)

    def show(self, text: str = "") -> None:
        """A line of the answer itself, on stdout, unless the answer is JSON."""
        if not self.as_json:
            self.data.print(text)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table of the answer, on stdout, unless the answer is JSON. Cells are escaped."""
        if self.as_json:
            return
        table = Table(
            title=safe(title),
            title_justify="left",
            title_style="bold",
            show_header=any(columns),
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for number, column in enumerate(columns):
            table.add_column(column, style=None if number else "bold", overflow="fold", header_style="dim")
        for row in rows:
            table.add_row(*(safe(cell) for cell in row))
        self.data.print(table)
        self.data.print()

    def findings(self, findings: Sequence[Finding]) -> None:
        """Every finding with its fix, on stderr."""
        order = {"error": 0, "warning": 1, "note": 2}
        for found in sorted(findings, key=lambda item: order[item.severity]):
            colour = _COLOURS[found.severity]
            self.say(f"[{colour}]{found.severity} {found.code}[/] {one_line(found.where)}: {one_line(found.what)}")
            self.say(f"    {one_line(found.fix)}")

    def next_step(self, *words: object) -> None:
        """The command that comes next, of the words after `tunesmith`, quoted for a shell."""
        # Not wrapped: it is there to be copied.
        self.words.print(f"[dim]Next:[/] tunesmith {one_line(shlex.join(map(str, words)))}", soft_wrap=True)

    def error(self, error: TunesmithError) -> None:
        """What, why, and what to do, on stderr; where the answer is JSON, also as a record with the findings."""
        findings = error.findings if isinstance(error, FindingsError) else []
        if self.as_json:
            told = {"what": error.what, "why": error.why, "fix": error.fix}
            self.record({"error": told, "findings": [found.model_dump(mode="json") for found in findings]})
        if len(findings) > 1:
            self.findings(findings)
        self.say(f"[bold red]error:[/] {one_line(error.what)}")
        self.say(f"  [dim]why:[/] {one_line(error.why)}")
        self.say(f"  [dim]fix:[/] {one_line(error.fix)}")

    @contextmanager
    def progress(self) -> Iterator[StageProgress]:
        """Progress bars on stderr; plain lines without a terminal, one every tenth of the training."""
        if not self.words.is_terminal:
            yield StageProgress(self, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.words, transient=False) as bars:
            yield StageProgress(self, bars)


def _in_words(event: Event) -> str:
    """An evaluation, or a return to an earlier checkpoint."""
    if event.kind == "rollback":
        return f"back to step {event.step}, at {event.data['factor']:g} times the learning rate"
    if "eval_reward" in event.data:  # the loss of grpo and rloo says nothing
        return f"step {event.step}: held-out reward {event.data['eval_reward']:.4f}"
    return f"step {event.step}: held-out loss {event.data['eval_loss']:.4f}"


def _slow_rows(prepared: dict[str, Any]) -> Iterator[str]:
    """Why rows ("train", "eval") were prepared by TRL rather than on the fast path, or by a slower encoder."""
    for name, how in prepared.items():
        if how["not_taken"]:
            yield f"{safe(name)} rows prepared by TRL, not on the fast path: {one_line(how['not_taken'])}"
        elif how["slower"]:
            yield f"{safe(name)} rows encoded by {safe(how['encoder'])}, not by tiktoken: {one_line(how['slower'])}"


class StageProgress:
    """Shows the progress of stages and of training."""

    def __init__(self, output: Output, bars: Progress | None) -> None:
        self._output = output
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._parts: dict[str, int] = {}

    def __call__(self, label: str, done: int, total: int | None, note: str = "") -> None:
        """Progress callback of the stages: `done` of `total` units of `label`."""
        if self._bars is None:
            self._line(label, done, total, note)
            return
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(safe(label), total=total, note="")
        self._bars.update(self._tasks[label], completed=done, total=total, note=note)

    def _line(self, label: str, done: int, total: int | None, note: str) -> None:
        parts = 10 if label == "train" else 2
        part = parts * done // total if total else 0
        if self._parts.get(label) != part:
            self._parts[label] = part
            of = f" {done}/{total}" if total else ""
            self._output.say(f"{safe(label)}{of}  {note}".rstrip())

    def event(self, event: Event) -> None:
        """Show one event of a run."""
        data = event.data
        if event.kind == "start":
            self._steps = int(data["steps"])
            self("train", event.step, self._steps)
        elif event.kind == "rows":
            for line in _slow_rows(data):
                self._output.say(line)
        elif event.kind == "audit":
            with_stop = data["rows_kept"] - data["rows_without_stop"]
            self._output.say(
                f"label audit: {data['trained_percent']:.1f}% of tokens are trained, a stop token in {with_stop:,} of "
                f"{counted(data['rows_kept'], 'row')}, {counted(data['rows_cut'], 'row')} cut"
            )
        elif event.kind == "log":
            speed = data["num_tokens"] / data["seconds"] if data["seconds"] else 0.0
            said = f"reward {data['reward']:.4f}" if "reward" in data else f"loss {data['loss']:.4f}"
            self("train", event.step, self._steps, f"{said}  {speed:,.0f} tok/s")
        elif event.kind in ("eval", "rollback"):
            self._output.say(_in_words(event))
        elif event.kind == "sample":
            for line in sample_lines(event):
                self._output.say(safe(line))
        elif event.kind == "finding":
            self._output.findings([Finding.model_validate(data)])

    _steps = 0
