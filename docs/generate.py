"""Writes the pages that are made from code: rules, command line, JSON Schemas. A test holds them up to date."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tunesmith.cli import VERBS
from tunesmith.cli.schema import SCHEMAS, schema_of
from tunesmith.rules import RULES

DOCS = Path(__file__).parent
_LETTERS = {
    "D": "Data",
    "T": "Tokens and template",
    "P": "Plan",
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
            f"*{rule.severity}* · `{rule.what}`",
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
    pages = ["# Command line", "", "```text", _help([], environment), "```"]
    for verb in VERBS:
        pages += ["", f"## {verb}", "", "```text", _help([verb], environment), "```"]
    return "\n".join(pages) + "\n"


def _help(words: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "tunesmith", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def pages() -> dict[Path, str]:
    """Every generated page: path -> content."""
    made = {DOCS / "rules.md": rules_page(), DOCS / "cli.md": cli_page()}
    for name in SCHEMAS:
        made[DOCS / "schemas" / f"{name}.json"] = json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"
    return made


if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
