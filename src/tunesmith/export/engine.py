"""A real llama.cpp that reads an exported file: a server process and what verification asks of it over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import importlib.util
import json
import math
import re
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

_SERVER: Final = "tunesmith.export.serve"
_LOAD_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 10.0
_INSTALL: Final = "Install the checker, `pip install 'tunesmith[gguf]'`, and export again."
_FASTER: Final = "Export again on a faster or less busy machine."
_CERTAIN: Final = 1000.0
"""What added to a token's logit makes it the best, whatever the model says."""
_LOG_PREFIX: Final = re.compile(r"^[\d.]+ [A-Z] ")


class EngineError(Exception):
    """The engine refused the file, refused a request, or died of it: the file is at fault."""


class EngineLackingError(Exception):
    """There is no working engine on this machine, or it took too long: nothing is known of the file."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def version() -> str | None:
    """The engine's name and version, or None where it isn't installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    return f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"


class Engine:
    """A llama.cpp server with one model."""

    def __init__(self, address: str, deadline: float) -> None:
        """Talk to the server at `address` until `time.monotonic()` reaches `deadline`."""
        self._host = urlsplit(address).netloc
        self._deadline = deadline
        self._connection = http.client.HTTPConnection(self._host)
        self._letter: int | None = None

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of a text in which special tokens count as such; BOS and EOS are put around it if `add_special`."""
        asked = {"content": text, "add_special": add_special, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The prompt made of a chat by the template in the file, up to where the assistant writes."""
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def best(self, prefix: Sequence[int], count: int) -> dict[int, float]:
        """The `count` most likely next tokens, best first, with their log-probabilities (nats) over the vocabulary.

        The server keeps the probabilities back while its text ends within a character, as it does after many a token
        of CJK or emoji. So it is made to write a letter; the probabilities are those before this choice.
        """
        answer = self._complete(prefix, n_probs=count, logit_bias=[[self._whole_character(), _CERTAIN]])
        if not answer.get("completion_probabilities"):
            raise EngineError("it gives no probabilities")
        best = answer["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: math.nan if entry["logprob"] is None else entry["logprob"] for entry in best}

    def stops(self, prefix: Sequence[int]) -> bool:
        """Whether greedy generation ends right after `prefix`."""
        return bool(self._complete(prefix)["stop_type"] == "eos")

    def properties(self) -> dict[str, Any]:
        """What the server tells of the file: chat_template, eos_token and more."""
        return self._ask("GET", "/props", None)

    def _whole_character(self) -> int:
        """Id of a token that is one ASCII character."""
        if self._letter is None:
            found = (self.tokenize(character, add_special=False) for character in string.ascii_letters + string.digits)
            self._letter = next((ids[0] for ids in found if len(ids) == 1), None)
        if self._letter is None:
            raise EngineError("no ASCII letter or digit is a token of its own")
        return self._letter

    def _complete(self, prefix: Sequence[int], **options: Any) -> dict[str, Any]:
        greedy = {"n_predict": 1, "temperature": -1.0, "samplers": ["temperature"], "cache_prompt": True}
        return self._post("/completion", {"prompt": list(prefix), **greedy, **options})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> dict[str, Any]:
        """Ask the server; the connection is kept open, as there are hundreds of small requests.

        Raises:
            EngineError: it answers with an error, or is gone.
            EngineLackingError: the deadline has passed.
        """
        self._connection.timeout = self._seconds_left()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(self._connection.timeout)
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            content = response.read()
        except TimeoutError:
            raise EngineLackingError("llama.cpp took too long", _FASTER) from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"llama.cpp died of it ({type(error).__name__})") from error
        answer: dict[str, Any] = json.loads(content)
        if response.status != http.client.OK:
            raise EngineError(str(answer.get("error", {}).get("message", content[:200])))
        return answer

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise EngineLackingError("llama.cpp took too long", _FASTER)
        return left


@contextlib.contextmanager
def serve(path: Path, *, context: int, threads: int, seconds: float) -> Iterator[Engine]:
    """An engine that has loaded the GGUF file `path`, for at most `seconds`; its process ends with the block.

    Raises:
        EngineError: llama.cpp can't load the file.
        EngineLackingError: llama.cpp can't run here, or is too slow.
    """
    if version() is None:
        raise EngineLackingError("llama.cpp isn't installed", _INSTALL)
    deadline = time.monotonic() + seconds
    command = [sys.executable, "-m", _SERVER, str(path), str(context), str(threads)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            yield Engine(_address(process, log), deadline)
        finally:
            _stop(process)


def _address(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    assert process.stdout is not None
    started = time.monotonic()
    timer = threading.Timer(_LOAD_SECONDS, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    if not line and time.monotonic() - started >= _LOAD_SECONDS:
        raise EngineLackingError(f"llama.cpp didn't load it within {_LOAD_SECONDS:.0f} seconds", _FASTER)
    said = json.loads(line) if line else {"refused": "llama.cpp died of it"}
    if "lacking" in said:
        raise EngineLackingError(f"xllamacpp can't be loaded ({said['lacking']})", _INSTALL)
    if "refused" in said:
        raise EngineError(_complaint(log) or said["refused"])
    return str(said["address"])


def _complaint(log: IO[bytes]) -> str | None:
    """The first line of the server's log that tells of an error."""
    log.seek(0)
    for line in log.read().decode(errors="replace").splitlines():
        if "error" in line.lower() or "GGML_ASSERT" in line:
            return _LOG_PREFIX.sub("", line.strip())[:300]
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.stdin and process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
