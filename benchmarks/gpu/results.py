"""The result file, which is whole after every configuration, and the table at the end."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.files import write_atomic

from .configurations import Configuration
from .race import Race

Row = dict[str, Any]
DONE = ("measured", "out of memory")
"""What isn't tried again by a later call."""
_SAME = ("comparable", "device", "memory", "versions")


class Results:
    """gpu.json: where it was measured, attention's parity, and a row for each configuration.

    A row has its `configuration`, `name`, `predicted`, `status` (waiting, measured, out of memory, timed out, failed)
    and what was `measured`.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        """`head` says where the measurements are made.

        Raises:
            ValueError: the file has measurements made elsewhere, or with other versions.
        """
        self._path = path
        self.rows: list[Row] = []
        self.checks: list[Row] = []
        self.races: list[Row] = []
        self.parity: dict[str, Any] | None = None
        self._head = head
        if path.exists():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name in _SAME if earlier.get(name) != head[name]]
            if other:
                raise ValueError(f"{path} was measured with other {', '.join(other)}: remove it, or give --output DIR.")
            self.rows, self.parity = earlier["rows"], earlier["parity"]
            self.checks, self.races = earlier["checks"], earlier["races"]

    @property
    def content(self) -> dict[str, Any]:
        """What is written."""
        return self._head | {
            "parity": self.parity,
            "checks": self.checks,
            "races": self.races,
            "rows": self.rows,
        }

    def ask(self, checks: list[str], races: list[Race]) -> None:
        """Rows for checks and races that the file doesn't have yet."""
        for name in checks:
            if name not in [row["name"] for row in self.checks]:
                self.checks.append({"name": name, "measured": None, "status": "waiting"})
        for race in races:
            asked = dataclasses.asdict(race)
            if asked not in [row["configuration"] for row in self.races]:
                self.races.append({"configuration": asked, "name": race.name, "measured": None, "status": "waiting"})

    def expect(self, configuration: Configuration, predicted: dict[str, Any]) -> Row:
        """The configuration's row. A prediction stands once its step was run; until then it is the present code's."""
        asked = dataclasses.asdict(configuration)
        for row in self.rows:
            if row["configuration"] == asked:
                return row if row["status"] in DONE else _waiting(row, predicted)
        row = {"configuration": asked, "name": configuration.name, "measured": None, "status": "waiting"}
        self.rows.append(row)
        return _waiting(row, predicted)

    def write(self) -> None:
        """Write the file."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomic(self._path, json.dumps(self.content | {"measured": now}, indent=2) + "\n")


def _waiting(row: Row, predicted: dict[str, Any]) -> Row:
    row["predicted"] = predicted
    return row


def table(content: dict[str, Any]) -> str:
    """Predicted against measured in words, with the errors of the predictions where they can be compared."""
    parts = (_parity(content["parity"]), _checks(content), _races(content), _rows(content), _summary(content))
    return "\n\n".join("\n".join(part) for part in parts)


def _checks(content: dict[str, Any]) -> Iterator[str]:
    yield "Checks:"
    for row in content["checks"]:
        found = row["measured"]
        verdict = row["status"] if found is None else "holds" if found["holds"] else "DOES NOT HOLD"
        yield f"  {row['name']:<32} {verdict}{': ' + found['seen'] if found else ''}"


def _races(content: dict[str, Any]) -> Iterator[str]:
    yield f"Races:{'':<26}{'tokens/s':>12}{'of ours':>10}{'MFU':>8}   both turns"
    for row in content["races"]:
        yield f"{row['name']}" + ("" if row["measured"] else f"    {row['status']}")
        if row["measured"]:
            yield from _contestants(row["measured"], content["comparable"])


def _contestants(found: dict[str, Any], comparable: bool) -> Iterator[str]:
    ours = found["contestants"]["tunesmith"].get("tokens_per_second")
    for name, one in found["contestants"].items():
        if one["status"] != "measured":
            yield f"  {name:<30}{one['status']:>12}"
            continue
        pace = one["tokens_per_second"]
        ratio = f"{pace / ours:>10.2f}" if ours else f"{'-':>10}"
        share = f"{one['mfu']:>8.1%}" if comparable else f"{'-':>8}"
        turns = ", ".join(f"{turn:,.0f}" for turn in one["turns"])
        yield f"  {name:<30}{pace:>12,.0f}{ratio}{share}   {turns}{'' if one['trains'] else '  DID NOT TRAIN'}"
    if not found["equal"]:
        yield f"  NOT THE SAME LOSS on the fixed batch: they differ by {found['fixed_spread']:.1%}"


def _parity(parity: dict[str, Any] | None) -> Iterator[str]:
    if parity is None or parity["status"] != "measured":
        yield f"Attention: {'not checked' if parity is None else parity['status'] + ': ' + parity['error']}"
        return
    verdict = "the same loss alone, padded and packed" if parity["equal"] else "NOT THE SAME LOSS"
    yield f"Attention: {verdict}. Greatest difference of a row's loss from eager attention on the row alone:"
    for case in parity["cases"]:
        held = "" if case["as_expected"] else "  UNEXPECTED"
        yield f"  {case['dtype']:<9} {case['attention']:<6} {case['way']:<24} {case['difference']:.1e}{held}"


def _rows(content: dict[str, Any]) -> Iterator[str]:
    heads = ("allocated, GB", "reserved, GB", "tokens/s")
    width = max((len(row["name"]) for row in content["rows"]), default=0)
    yield " " * width + "".join(f"{head:>30}" for head in heads)
    yield " " * width + "".join(f"{'predicted, measured, error':>30}" for _ in heads)
    for row in content["rows"]:
        if row["status"] != "measured":
            said = "fits" if row["predicted"]["fits"] else "does not fit"
            size = _gb(row["predicted"]["reserved"])
            yield f"{row['name']:<{width}}    {row['status']} (predicted: {said}, reserved {size} GB)"
            continue
        cells = [_bytes_cell(row, name, content["comparable"]) for name in ("allocated", "reserved")]
        cells.append(_speed_cell(row, content["comparable"]))
        yield f"{row['name']:<{width}}" + "".join(f"{cell:>30}" for cell in cells)
        yield from _doubts(row)


def _bytes_cell(row: Row, name: str, comparable: bool) -> str:
    measured = row["measured"][name]
    if measured is None:
        return "-"
    end = f" {error(row, name):+7.1%}" if comparable else "       -"
    return f"{_gb(row['predicted'][name])} {_gb(measured)}{end}"


def _speed_cell(row: Row, comparable: bool) -> str:
    speed, measured = row["predicted"]["tokens_per_second"], row["measured"]["tokens_per_second"]
    end = ("" if _inside(row) else " OUTSIDE") if comparable else " -"
    return f"{speed['low']:,.0f}..{speed['high']:,.0f} {measured:,.0f}{end}"


def _doubts(row: Row) -> Iterator[str]:
    """A step that trains nothing is fast and small."""
    if not row["measured"]["trains"]:
        yield f"    DID NOT TRAIN: gradient norms {row['measured']['grad_norms']}, losses {row['measured']['losses']}"


def _summary(content: dict[str, Any]) -> Iterator[str]:
    done = [row for row in content["rows"] if row["status"] == "measured"]
    yield f"{len(done)} of {len(content['rows'])} configurations measured on {content['device']}."
    if not content["comparable"]:
        yield "Not comparable: a trial on the CPU, where memory is the whole process's."
        return
    for name in ("allocated", "reserved"):
        errors = [error(row, name) for row in done]
        if errors:
            middle, worst = statistics.median(map(abs, errors)), max(errors, key=abs)
            yield f"{name}: median error {middle:.1%}, worst {worst:+.1%}, least {min(errors):+.1%}"
    if done:
        contexts = [f"{_gb(row[of]['context'])} GB" for of in ("predicted", "measured") for row in done[:1]]
        yield f"context: predicted {contexts[0]}, measured {contexts[1]}"
    yield f"tokens/s: {sum(map(_inside, done))} of {len(done)} inside their interval"


def error(row: Row, name: str) -> float:
    """Error of a prediction relative to what was measured: 0.05 is 5% too much."""
    return float(row["predicted"][name] / row["measured"][name] - 1)


def _inside(row: Row) -> bool:
    speed = row["predicted"]["tokens_per_second"]
    return bool(speed["low"] <= row["measured"]["tokens_per_second"] <= speed["high"])


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"
