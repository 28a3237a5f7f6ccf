"""A server on the loopback interface that speaks OpenAI's protocol: answers as scripted, fails as told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong.

    Attributes:
        status: The answer's status.
        body: What is sent in place of an answer; None: an error as OpenAI words it, or the answer itself at status 200.
        headers: Sent besides.
        delay: Seconds before anything is sent.
        cut: Close the connection in the middle of the body.
    """

    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


BROKEN = Fault(body=b'{"choices": [{"message": {"role": "assista')
SHAPELESS = Fault(body=b'{"choices": []}')
CUT = Fault(cut=True)


def slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(delay=seconds)


@dataclass
class OpenAIServer:
    """A running server.

    Attributes:
        url: Its address, with /v1.
        answer: Gives the assistant's text for a request's body, or a whole message (as a dict, with tool_calls, say).
            Empty text and None are answers too. It is called from several threads.
        model: The model that it has; requests for another get 404.
        told: What the list of models says of it besides.
        key: The key that requests must bear, if any.
        faults: By number of the request, from 1 in order of arrival: how it fails; or a function of number and body.
        completions: Whether it has /completions besides /chat/completions.
        finish: Why answers end: stop, length, ...
        asked: Bodies of all requests for answers in order of arrival, each with its "path".
        headers: Their headers, in the same order.
        most_at_once: Most requests that were worked on at the same time.
    """

    url: str
    answer: Callable[[dict[str, Any]], str | dict[str, Any] | None]
    model: str = "served"
    told: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    faults: Mapping[int, Fault] | Callable[[int, dict[str, Any]], Fault | None] = field(default_factory=dict)
    completions: bool = True
    finish: str = "stop"
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def taking(self, body: dict[str, Any], headers: dict[str, str]) -> Iterator[Fault | None]:
        """Count a request while it is worked on; gives how it fails."""
        with self._lock:
            self.asked.append(body)
            self.headers.append(headers)
            number = len(self.asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield self.faults(number, body) if callable(self.faults) else self.faults.get(number)
        finally:
            with self._lock:
                self._now -= 1


@contextlib.contextmanager
def serve(
    answer: Callable[[dict[str, Any]], str | dict[str, Any] | None] = lambda body: f"You said: {said(body)}",
    **settings: Any,
) -> Iterator[OpenAIServer]:
    """A server while the block lasts; `settings` are fields of `OpenAIServer`."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    http.block_on_close = False
    server = OpenAIServer(f"http://127.0.0.1:{http.server_address[1]}/v1", answer, **settings)
    http.scripted = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def said(body: Mapping[str, Any]) -> str:
    """The last message of a request, or its prompt."""
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def error(message: str, kind: str = "invalid_request_error") -> bytes:
    """An error's body as OpenAI, vLLM and llama-server word it."""
    return json.dumps({"error": {"message": message, "type": kind, "code": None}}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _script(self) -> OpenAIServer:
        return self.server.scripted  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            models = [{"id": self._script.model, "object": "model", "owned_by": "test", **self._script.told}]
            self._send(200, json.dumps({"object": "list", "data": models}).encode())
        else:
            self._send(404, error("no such route"))

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = {**json.loads(text), "path": self.path}
        with self._script.taking(body, dict(self.headers)) as fault:
            self._answer(body, fault or Fault())

    def _answer(self, body: dict[str, Any], fault: Fault) -> None:
        time.sleep(fault.delay)
        script = self._script
        if script.key is not None and self.headers.get("authorization") != f"Bearer {script.key}":
            self._send(401, error("Incorrect API key provided", "authentication_error"))
        elif not self._has_route():
            self._send(404, error("no such route"))
        elif body.get("model") != script.model:
            self._send(404, error(f"The model `{body.get('model')}` does not exist.", "NotFoundError"))
        elif fault.status != 200 or fault.body is not None:
            self._send(fault.status, fault.body or error(f"scripted {fault.status}"), fault.headers)
        else:
            self._send(200, self._worded(body), fault.headers, cut=fault.cut)

    def _has_route(self) -> bool:
        return self.path == "/v1/chat/completions" or (self._script.completions and self.path == "/v1/completions")

    def _worded(self, body: dict[str, Any]) -> bytes:
        """An answer as the route words it."""
        given = self._script.answer(body)
        message = given if isinstance(given, dict) else {"role": "assistant", "content": given}
        text = message.get("content") or ""
        choice = {"text": text} if self.path == "/v1/completions" else {"message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": len(text.split()), "total_tokens": 1 + len(text.split())}
        whole = {
            "id": "answer",
            "object": "chat.completion",
            "created": 0,
            "model": self._script.model,
            "choices": [{"index": 0, "finish_reason": self._script.finish, **choice}],
            "usage": usage,
        }
        return json.dumps(whole).encode()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, cut: bool = False) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who gave up waiting is gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        self.close_connection = self.close_connection or cut
