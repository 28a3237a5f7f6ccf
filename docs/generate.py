"""Writes the pages that are made from code and results. A test holds them up to date."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.cli import VERBS
from tunesmith.cli.schema import SCHEMAS, schema_of
from tunesmith.rules import RULES

DOCS = Path(__file__).parent
BENCHMARKS = DOCS.parent / "benchmarks"
_BENCHMARKS_HEAD = """# Benchmarks

`make bench` runs all of them, the commands below one each. They need the extra `dev`, which brings the peers; the
numbers in brackets are arguments that may be left out. Contestants take turns, in an order that shifts from round to
round, after a round that isn't counted; the medians count. A result is written to `benchmarks/results/`, and
`make docs` makes this page of what is there.
"""
_CHOICE, _MANY = re.compile(r"\{\w+:[^|}]*\|([^}]*)\}"), r"\1"  # of words for one and for many
_LETTERS = {
    "D": "Data",
    "T": "Tokens and template",
    "P": "Plan",
    "H": "Hub and jobs",
    "R": "Run",
    "E": "Evaluation",
    "X": "Export",
}


def rules_page() -> str:
    """All rules, by letter."""
    lines = [
        "# Rules",
        "",
        "Known ways in which fine-tuning goes wrong. `tunesmith rule T001` shows one in the terminal.",
    ]
    letter = ""
    for rule in RULES.values():
        if rule.code[0] != letter:
            letter = rule.code[0]
            lines += ["", f"## {letter}: {_LETTERS[letter]}"]
        lines += [
            "",
            f"### {rule.code} {rule.title}",
            "",
            f"*{rule.severity}* · `{_CHOICE.sub(_MANY, rule.what)}`",
            "",
            rule.why,
            "",
            f"Fix: `{rule.fix}`",
            "",
            f"Source: {rule.source}",
        ]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """The help of every verb."""
    environment = {**os.environ, "COLUMNS": "100"}
    pages = ["# Command line", "", "```text", _help([], environment), "```", "", _ANSWERS]
    for verb in VERBS:
        pages += ["", f"## {verb}", "", "```text", _help([verb], environment), "```"]
    return "\n".join(pages) + "\n"


_ANSWERS = """\
Exit codes: 0 done, 1 findings of severity error, 2 usage, 3 the machine lacks something, 130 stopped. With `--json` the
record is printed on stdout; a command that ends with an error prints one of the error there instead, whatever the verb:
`{"error": {"what": ..., "why": ..., "fix": ...}, "findings": [...]}`. The findings, each with `code`, `severity`,
`where`, `what` and `fix`, are those that the command was refused for; other errors have none. Words for people stand on
stderr in either case."""


def _help(words: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "tunesmith", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def benchmarks_page() -> str:
    """What each benchmark measures, how it is run, and its last results."""
    modules = {path.stem: ast.get_docstring(ast.parse(path.read_text())) for path in BENCHMARKS.glob("*.py")}
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(BENCHMARKS.glob("results/*.json"))]
    pages = [_BENCHMARKS_HEAD]
    for name, said in sorted(modules.items()):
        # One module may measure several things: data_tokens writes data_tokens_packing_bfd.
        own = [result for result in results if result["name"] == name or result["name"].startswith(f"{name}_")]
        if own and said:
            title, command, *text = said.split("\n\n")
            pages += [f"## {name}", title, f"```console\n$ {command}\n```", *text]
            pages += [_told(result) for result in own]
    return "\n\n".join(page.strip() for page in pages) + "\n"


def _told(result: dict[str, Any]) -> str:
    """A contest's table; other results are told in a page of their own."""
    if "ratio_to_ours" not in result:
        page = result.get("page", "memory.md")
        return f"Results: `benchmarks/results/{result['name']}.json`, told in [{page}]({page})."
    return f"### {result['name']}\n\n{benchmark_result(result)}"


def benchmark_result(result: dict[str, Any]) -> str:
    """One result: its setting, the contestants from the fastest on, who won, and where it was measured."""
    medians: dict[str, float] = result["median_seconds"]
    ratios: dict[str, float] = result["ratio_to_ours"]
    ours = next(name for name, ratio in ratios.items() if ratio == 1)
    fastest = result["fastest"]
    more = {name: value for name, value in result.items() if name not in _FIELDS}
    columns = dict(_columns(more, medians))
    names = ["median", "range", f"of {ours}", *columns]
    lines = [f"| contestant | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        times = result["seconds"][name]
        # What is faster than the fastest was measured beside the contest, such as an empty process.
        shown = f"{name} (beside the contest)" if median < medians[fastest] else name
        cells = [f"{median:.3f} s", f"{min(times):.3f} to {max(times):.3f}", f"{ratios[name]:.2f}"]
        lines.append(f"| {' | '.join([shown, *cells, *(column.get(name, '') for column in columns.values())])} |")
    versions = result["versions"] | result.get("peers", {})
    won = f"Fastest: {fastest}."
    faster = [name for name, ratio in ratios.items() if ratios[fastest] <= ratio < 1]
    lost = f"**Lost**, {1 / ratios[fastest]:.2f} times as long as the fastest. Faster than {ours}: {'; '.join(faster)}."
    return "\n\n".join(
        [
            result["setting"],
            "\n".join(lines),
            won if fastest == ours else lost,
            *filter(None, ["\n".join(_besides(more, medians))]),
            f"Measured {result['measured'][:10]} on {result['machine']}; {len(result['seconds'][ours])} rounds. "
            f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        ]
    )


_FIELDS = {
    *("name", "setting", "measured", "machine", "versions", "peers"),
    *("median_seconds", "ratio_to_ours", "fastest", "seconds"),
}


def _columns(more: dict[str, Any], contestants: dict[str, float]) -> Iterator[tuple[str, dict[str, str]]]:
    """What a result says of each contestant besides its seconds: the column's name, and contestant -> number."""
    for name, value in more.items():
        own = {key: item for key, item in value.items() if key in contestants} if isinstance(value, dict) else {}
        parts = {part: name for item in own.values() if isinstance(item, dict) for part in item}
        for part in parts:
            yield _words(part), {key: _number(item[part]) for key, item in own.items()}
        if own and not parts:
            yield _words(name), {key: _number(item) for key, item in own.items()}


def _besides(more: dict[str, Any], contestants: dict[str, float]) -> Iterator[str]:
    """What a result says of no contestant, a list item each."""
    for name, value in more.items():
        rest = (
            {key: item for key, item in value.items() if key not in contestants} if isinstance(value, dict) else value
        )
        if isinstance(rest, dict) and rest:
            yield f"- {_words(name)}: {', '.join(f'{_words(key)} {_number(item)}' for key, item in rest.items())}"
        elif not isinstance(rest, dict):
            yield f"- {_words(name)}: {_number(rest)}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace(" mb", " (MB)")


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def pages() -> dict[Path, str]:
    """Every generated page: path -> content. docs/planted-faults.md has a script of its own, as it runs all cases."""
    made = {
        DOCS / "rules.md": rules_page(),
        DOCS / "cli.md": cli_page(),
        DOCS / "benchmarks.md": benchmarks_page(),
    }
    for name in SCHEMAS:
        made[DOCS / "schemas" / f"{name}.json"] = json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"
    return made


if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
