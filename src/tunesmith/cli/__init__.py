"""The command line: one file per verb, loaded when the verb is used."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Literal, NoReturn, Protocol

from .. import __version__
from ..errors import TunesmithError, UsageError

# Verb -> (module, help). In the order in which people need them.
VERBS = {
    "demo": ("tunesmith.cli.demo", "run the whole chain on the built-in model and task"),
    "tune": ("tunesmith.cli.tune", "the whole chain on your data: plan, train, evaluate, export, receipt"),
    "prepare": ("tunesmith.cli.prepare", "make a dataset of raw rows: map, filter, deduplicate, split"),
    "init": ("tunesmith.cli.init", "write a commented recipe for a data file and a model"),
    "inspect": ("tunesmith.cli.inspect", "what the data is, and what of it would be trained on"),
    "plan": ("tunesmith.cli.plan", "resolve a recipe: every value with its reason, and findings"),
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
# Keys of the recipe that verbs with OVERRIDES take beside the dotted ones.
TOP_KEYS = ("seed", "dtype", "chat_template", "revision", "rewards")
# Those that verbs with a recipe file take as well; the others have options of these names.
RECIPE_KEYS = ("model", "method", *TOP_KEYS)
_TOP_OPTIONS = ("--help", "--version", "--debug")


class Verb(Protocol):
    """What a verb's module offers.

    One that also has OVERRIDES = True takes keys of the recipe; with a section's name there, the keys of that one.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """Argparse whose errors are told as all others: what, why and what to do.

    Attributes:
        section: The section of the recipe whose keys are most likely to be given without its name; None: the verb
            takes no keys.
    """

    section: str | None = None

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UsageError: always.
        """
        import difflib
        import re

        unknown = re.search(r"^unrecognized arguments: .*?(--[^\s=]+)", message)
        near = difflib.get_close_matches(unknown[1], re.findall(r"--[a-z-]+", self.format_help()), 1) if unknown else []
        if unknown and self.section:
            from ..recipe.evaluation import Evaluation
            from ..recipe.schema import Data

            key = unknown[1].removeprefix("--").replace("-", "_")
            fields = (Evaluation if self.section == "evaluation" else Data).model_fields
            near = [f"--{self.section}.{key}"] if key in fields else near
        raise UsageError(
            f"{self.prog}: {message}.",
            why=f"Usage: {' '.join(self.format_usage().split()[1:])}",
            fix=f"Did you mean {near[0]}?" if near else f"`{self.prog} --help` tells about each argument.",
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 findings, 2 usage, 3 the environment lacks something."""
    # Idle OpenMP threads that spin make training ten times slower on cores shared with other work (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Progress and words are tunesmith's own; the libraries' would be mixed into them.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if not debug:
        # Deprecations inside the libraries are nothing a user could act on.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        code = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _drop_unread_output()
        return 0
    except KeyboardInterrupt:
        _show_traceback(debug)
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        _show_traceback(debug)
        options = words[: words.index("--")] if "--" in words else words
        return _report(error, as_json="--json" in options)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        return _top(words)
    verb = words[0]
    if verb not in VERBS:
        raise _unknown("verb", verb)
    module: Verb = importlib.import_module(VERBS[verb][0])
    takes_keys = getattr(module, "OVERRIDES", False)
    keys = RECIPE_KEYS if verb != "tune" else TOP_KEYS
    rest, overrides = _split_overrides(words[1:], keys if takes_keys is True else ())
    if takes_keys is not True:
        _refuse_keys(verb, overrides, section=takes_keys)
    try:
        arguments = make_parser(verb, module).parse_args(rest)
    except SystemExit:  # argparse has shown its help
        return 0
    arguments.overrides = overrides
    return module.run(arguments)


def make_parser(verb: str, module: Verb) -> Parser:
    """The parser of a verb."""
    text = VERBS[verb][1]
    # Without abbreviations: a new option must not change what an old script means.
    parser = Parser(prog=f"tunesmith {verb}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    module.add_arguments(parser)
    takes_keys = getattr(module, "OVERRIDES", None)
    parser.section = "data" if takes_keys is True else takes_keys
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _refuse_keys(verb: str, overrides: Iterable[str], section: str | Literal[False]) -> None:
    """Refuse keys of a recipe that a verb doesn't take.

    Raises:
        UsageError: there is one that isn't in `section`.
    """
    for name in overrides:
        if not (section and name.startswith(f"--{section}.")):
            raise UsageError(
                f"unknown option {name!r}",
                why=f"`tunesmith {verb}` takes no keys of a recipe{f' but those of {section}' if section else ''}.",
                fix=f"`tunesmith {verb} --help` lists its options.",
            )


def _split_overrides(words: list[str], top_keys: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take recipe keys such as `--training.max_steps 30` or `--adapter.kind=none` out of a command's words."""
    rest: list[str] = []
    overrides: dict[str, str] = {}
    stream = iter(words)
    for word in stream:
        if word == "--":  # what follows are no options
            rest += [word, *stream]
            break
        name, equals, value = word.partition("=")
        key = name.removeprefix("--")
        if not name.startswith("--") or not ("." in key or key in top_keys):
            rest.append(word)
            continue
        overrides[name] = value if equals else next(stream, "--")
        if overrides[name].startswith("--"):
            raise UsageError(
                f"{name} has no value.",
                why="A key of the recipe is followed by its value.",
                fix=f"Write `{name} VALUE` or `{name}=VALUE`.",
            )
    return rest, overrides


def _top(words: list[str]) -> int:
    if words and words[0] not in ("-h", *_TOP_OPTIONS):
        raise _unknown("option", words[0])
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
    print("  --debug        show tracebacks")
    print(f"\nNot built yet: {', '.join(PLANNED)} (see docs/roadmap.md).")
    return 0


def _unknown(kind: str, word: str) -> UsageError:
    import difflib

    if word in PLANNED:
        why, fix = "It is planned and isn't built yet (docs/roadmap.md).", "`tunesmith --help` lists what there is."
    else:
        near = difflib.get_close_matches(word, VERBS if kind == "verb" else _TOP_OPTIONS, n=1)
        why = f"There is no such {kind}."
        fix = f"Did you mean `tunesmith {near[0]}`?" if near else "`tunesmith --help` lists them."
    return UsageError(f"unknown {kind} {word!r}", why=why, fix=fix)


def _show_traceback(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _report(error: Exception, *, as_json: bool) -> int:
    from .output import Output

    if not isinstance(error, TunesmithError):
        text = str(error).splitlines()[0] if str(error) else ""
        error = TunesmithError(
            f"{type(error).__name__}: {text}",
            why="This is unexpected: a bug of tunesmith, or of a library under it.",
            fix="Run the same command with --debug and report what it prints.",
        )
    Output(as_json=as_json).error(error)
    return error.exit_code


def _drop_unread_output() -> None:
    """Point streams that nobody reads at the null device: Python flushes them at its end, and would fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def entry() -> None:
    """Console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal's encoding lacks are no reason to end
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
