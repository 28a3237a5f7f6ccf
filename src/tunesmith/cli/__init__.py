"""The command line: one file per verb, loaded when the verb is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from .. import __version__

# Verb -> (module, help). In the order in which people need them.
VERBS = {
    "demo": ("tunesmith.cli.demo", "run the whole chain on the built-in model and task"),
    "tune": ("tunesmith.cli.tune", "the whole chain on your data: plan, train, evaluate, export, receipt"),
    "init": ("tunesmith.cli.init", "write a commented recipe for a data file and a model"),
    "inspect": ("tunesmith.cli.inspect", "what the data is, and what of it would be trained on"),
    "plan": ("tunesmith.cli.plan", "resolve a recipe: every value with its reason, and findings"),
    "prepare": ("tunesmith.cli.prepare", "write a run folder: plan and rows, ready to train"),
    "train": ("tunesmith.cli.train", "train a recipe"),
    "resume": ("tunesmith.cli.resume", "continue a stopped or killed run from its last complete checkpoint"),
    "runs": ("tunesmith.cli.runs", "list, show, stop runs, and read their logs"),
    "evaluate": ("tunesmith.cli.evaluate", "compare the tuned model with its base on held-out rows"),
    "export": ("tunesmith.cli.export", "merge, convert to GGUF, and check that it is the same model"),
    "chat": ("tunesmith.cli.chat", "talk to the result of a run"),
    "receipt": ("tunesmith.cli.receipt", "put a run's records together: receipt.json and report.html"),
    "rule": ("tunesmith.cli.rule", "explain a rule, or list them all"),
    "schema": ("tunesmith.cli.schema", "print the JSON Schema of the recipe or of a record"),
}
PLANNED = ("push", "eject", "doctor", "mcp", "skill")
_OPTIONS = ("--debug",)


class Verb(Protocol):
    """What a verb's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 findings, 2 usage, 3 the environment lacks something."""
    # Idle OpenMP threads that spin make training ten times slower on cores shared with other work (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word not in _OPTIONS]
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is None or words[0].startswith("-"):
        return _top(words)
    if verb not in VERBS:
        return _unknown(verb)
    words, overrides = _split_overrides(words[1:])
    module: Verb = importlib.import_module(VERBS[verb][0])
    if overrides and not getattr(module, "OVERRIDES", False):
        return _unknown(next(iter(overrides)), verb)
    parser = argparse.ArgumentParser(prog=f"tunesmith {verb}", description=VERBS[verb][1].capitalize() + ".")
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(words)
    arguments.overrides = overrides
    return _guarded(module, arguments, debug)


def _split_overrides(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take recipe keys such as `--training.max_steps 30` or `--adapter.kind=none` out of a command's words."""
    rest: list[str] = []
    overrides: dict[str, str] = {}
    stream = iter(words)
    for word in stream:
        name, equals, value = word.partition("=")
        if name.startswith("--") and "." in name and "/" not in name:
            overrides[name] = value if equals else next(stream, "")
        else:
            rest.append(word)
    return rest, overrides


def _top(words: list[str]) -> int:
    if "--version" in words:
        print(f"tunesmith {__version__}")
        return 0
    print(
        "usage: tunesmith VERB ... [--debug]\n\n"
        "From raw data to a fine-tuned language model that is proven to be right.\n"
    )
    for verb, (_, text) in VERBS.items():
        print(f"  {verb:<9} {text}")
    print("\n  -h, --help     this text; `tunesmith VERB --help` tells about a verb")
    print("  --version      the version")
    print(f"\nNot built yet: {', '.join(PLANNED)} (see docs/roadmap.md).")
    known = {"-h", "--help"}
    return 0 if not words or known & set(words) else _unknown(words[0])


def _unknown(word: str, verb: str | None = None) -> int:
    import difflib

    if verb is not None:
        why, fix = f"`tunesmith {verb}` takes no keys of a recipe.", f"`tunesmith {verb} --help` lists its options."
    elif word in PLANNED:
        why, fix = "It is planned and isn't built yet (docs/roadmap.md).", "`tunesmith --help` lists what there is."
    else:
        near = difflib.get_close_matches(word, VERBS, n=1)
        why = "There is no such verb or option."
        fix = f"Did you mean `tunesmith {near[0]}`?" if near else "`tunesmith --help` lists them."
    print(
        f"error: unknown {'option' if verb or word.startswith('-') else 'verb'} {word!r}\n  why: {why}\n  fix: {fix}",
        file=sys.stderr,
    )
    return 2


def _guarded(module: Verb, arguments: argparse.Namespace, debug: bool) -> int:
    from ..errors import TunesmithError
    from .output import Output

    try:
        return module.run(arguments)
    except TunesmithError as error:
        if debug:
            raise
        Output().error(error)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        text = str(error).splitlines()[0] if str(error) else ""
        Output().error(
            TunesmithError(
                f"{type(error).__name__}: {text}",
                why="This is unexpected: a bug of tunesmith, or of a library under it.",
                fix="Run the same command with --debug and report what it prints.",
            )
        )
        return 1


def entry() -> None:
    """Console script."""
    sys.exit(main())
