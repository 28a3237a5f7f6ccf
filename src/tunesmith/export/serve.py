"""`python -m tunesmith.export.serve FILE CONTEXT THREADS`: one llama.cpp server on a free loopback port.

A process of its own, as llama.cpp may abort on a broken file. It tells its address in one line of JSON on stdout,
logs to stderr and lives until its stdin is closed.
"""

from __future__ import annotations

import json
import os
import sys


def main(path: str, context: int, threads: int) -> None:
    """Serve the GGUF file `path` with room for `context` tokens, on `threads` threads."""
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        import xllamacpp
    except ImportError as error:
        _tell(answers, lacking=str(error))
        return
    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.use_jinja = True
    parameters.warmup = False
    parameters.ui = False
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        _tell(answers, refused=str(error))
        return
    _tell(answers, address=server.listening_address)
    sys.stdin.read()


def _tell(answers: int, **said: str) -> None:
    os.write(answers, (json.dumps(said) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    # llama.cpp's threads would hold up an orderly exit.
    os._exit(0)
