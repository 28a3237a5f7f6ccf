"""`tunesmith rule [CODE]`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ..rules import RULES, look_up
from .common import add_json
from .output import Output, safe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("code", nargs="?", metavar="CODE", help="the rule's code, such as T003; without it all rules")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain one rule or list all."""
    output = Output(as_json=arguments.json)
    if arguments.code is None:
        if arguments.json:
            output.record({code: asdict(rule) for code, rule in RULES.items()})
        output.table("", ("code", "severity", "rule"), [(r.code, r.severity, r.title) for r in RULES.values()])
        output.next_step("rule", "T001")
        return 0
    rule = look_up(arguments.code)
    if arguments.json:
        output.record(asdict(rule))
        return 0
    output.show(f"[bold]{rule.code}  {safe(rule.title)}[/] ({rule.severity})\n")
    for name in ("what", "why", "fix", "source"):
        output.show(f"[dim]{name:<7}[/] {safe(getattr(rule, name))}")
    return 0
