"""`tunesmith chat RUN`."""

from __future__ import annotations

import argparse
import sys

from .. import pipeline
from ..errors import UsageError
from .common import add_json, add_run, positive
from .output import Output, harmless


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add_run(parser)
    parser.add_argument("--prompt", help="answer this one message and end")
    parser.add_argument("--base", action="store_true", help="talk to the base model instead")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=256, metavar="N", help="longest answer (default: 256)"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer one message, or talk until Ctrl-D."""
    output = Output(as_json=arguments.json)
    if arguments.json and arguments.prompt is None:
        raise UsageError(
            "tunesmith chat --json needs --prompt.", why="A talk has no one answer.", fix="Give --prompt TEXT."
        )
    chat = pipeline.open_chat(pipeline.open_run(arguments.run), base=arguments.base)
    if arguments.prompt is not None:
        answer = chat.answer(arguments.prompt, max_new_tokens=arguments.max_new_tokens)
        if arguments.json:
            output.record({"prompt": arguments.prompt, "answer": answer})
        else:
            output.data.out(harmless(answer))
        return 0
    output.say("Ctrl-D ends the talk; an empty line begins a new one.")
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return 0
        if not line.strip():
            chat.forget()
            continue
        output.data.out(harmless(chat.answer(line.strip(), max_new_tokens=arguments.max_new_tokens)))
