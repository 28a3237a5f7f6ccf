"""A model behind a server that speaks OpenAI's protocol (vLLM, llama-server, TGI, a provider): one request at a time.

The protocol: platform.openai.com/docs/api-reference, chat/create and completions/create.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..errors import EnvironmentLacksError, TunesmithError, UsageError
from ..recipe.evaluation import Endpoint

if TYPE_CHECKING:
    import httpx

_FIRST_WAIT: Final = 0.5
"""Seconds before the first repetition; each further wait is twice as long (exponential backoff with jitter)."""
_LONGEST_WAIT: Final = 60.0
_MOST_BYTES: Final = 32 << 20
_MOST_SHOWN: Final = 200
"""Characters of an error's message that are shown."""
_LASTING: Final = ("id", "root", "parent", "owned_by", "max_model_len", "meta")
"""What of a listed model stays while a server runs; vLLM and llama-server put the time of the question in `created`."""
_TRANSIENT: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed: RFC 9110, 15.5 and 15.6; 429 of RFC 6585; 529 of providers."""
_REFUSED: Final = frozenset({400, 413, 422})
"""Statuses of a request that this server won't answer, however often it is asked."""
_ELSEWHERE: Final = frozenset({405, 410, 411, 415, 426, 501, 505})
"""Statuses of an address at which nobody speaks the protocol: RFC 9110, 15.5 and 15.6."""
_JITTER: Final = random.Random()
"""Keeps threads from coming back all at once, and leaves the generator alone that others seed."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Reply:
    """What a server answers: the text, and whether it ended by itself rather than at the limit of tokens."""

    text: str
    stopped: bool


class RefusedError(TunesmithError):
    """The server takes requests, but not this one: too long for its context, say, or against its rules."""


class _PassingError(Exception):
    """What may go away when the same is asked again; `wait`: seconds for which the server wants to be left alone."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Client:
    """Asks one endpoint; threads may share it. A failed request is repeated as often as the endpoint's `retries`."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Open no connection yet.

        Raises:
            EnvironmentLacksError: the environment variable with the key isn't set.
        """
        import httpx

        self.endpoint = endpoint
        self._key = key_of_endpoint(endpoint)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=endpoint.timeout,
            limits=httpx.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency),
            trust_env=urlsplit(endpoint.url).hostname not in _LOOPBACK,  # a proxy can't reach what is on this machine
        )

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The answer to a request that `request_body` made.

        Raises:
            RefusedError: the server refuses this request.
            UsageError: it refuses the key, or has no such model or route.
            EnvironmentLacksError: it can't be reached, wants something else first (402: to be paid), or doesn't answer
                as the protocol says, however often asked.
        """
        route = "chat/completions" if "messages" in request else "completions"
        for attempt in range(self.endpoint.retries + 1):
            try:
                return _reply(self._post(route, request))
            except _PassingError as error:
                last = error
                if attempt < self.endpoint.retries:
                    time.sleep(_wait(attempt, error.wait))
        raise self._failed(str(last))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the server tells of the model itself, empty where it tells nothing; another one may go by its name."""
        listed = self._listed()
        named = [one for one in listed if one.get("id") == self.endpoint.model] or (listed if len(listed) == 1 else [])
        return {name: named[0][name] for name in _LASTING if name in named[0]} if named else {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, route: str, request: Mapping[str, Any]) -> bytes:
        """The body of a good response, read within the time that one answer may take."""
        import httpx

        until = time.monotonic() + self.endpoint.timeout
        try:
            with self._http.stream("POST", self._url(route), json=dict(request)) as response:
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if time.monotonic() > until:
                        raise _PassingError(f"it took more than {self.endpoint.timeout:g} s")
                    if len(body) > _MOST_BYTES:
                        raise _PassingError("its answer doesn't end")
        except httpx.TimeoutException:
            raise _PassingError(f"it took more than {self.endpoint.timeout:g} s") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _PassingError(self._without_key(str(error) or type(error).__name__)) from None
        if not response.is_success:
            raise self._error(response, bytes(body), route)
        return bytes(body)

    def _error(self, response: httpx.Response, body: bytes, route: str) -> Exception:
        """What a response of another status than 2xx means."""
        status, said = response.status_code, _short(self._without_key(_said(body)))
        shown = f"status {status}{f': {said}' if said else ''}"
        if status in _TRANSIENT:
            return _PassingError(shown, _retry_after(response.headers.get("retry-after")))
        if status in _REFUSED:
            fix = "If it is too long: serve the model with a longer context, or lower max_new_tokens."
            return RefusedError(f"{self.endpoint.url} refuses a request.", why=shown, fix=fix)
        if status in (401, 403):
            given = f"the key in {self.endpoint.key}" if self.endpoint.key else "a request without a key"
            fix = "Put a valid one there" if self.endpoint.key else "Name the environment variable with it: `key: NAME`"
            return UsageError(f"{self.endpoint.url} refuses {given}.", why=shown, fix=f"{fix}.")
        if status == 404:
            return UsageError(
                f"{self.endpoint.url} has no model {self.endpoint.model}, or no route /{route}.",
                why=shown,
                fix=f"{self._models()}The address ends in /v1 for most servers.",
            )
        what = f"{self.endpoint.url} answers with status {status}."
        if response.is_redirect or status in _ELSEWHERE:
            return UsageError(what, why=shown, fix="Check the address of the endpoint.")
        fix = "Put right what the server says; what it answered so far is kept, so just run it again."
        return EnvironmentLacksError(what, why=shown, fix=fix)

    def _models(self) -> str:
        """What models the server says that it has, as a sentence; empty where it doesn't say."""
        names = [self._without_key(_sound(str(one["id"]))) for one in self._listed() if "id" in one]
        return f"It has {', '.join(names[:10])}. " if names else ""

    def _listed(self) -> list[dict[str, Any]]:
        """The models that the server lists; none where it doesn't."""
        import httpx

        try:
            listed = self._http.get(self._url("models")).json()["data"]
        except (httpx.HTTPError, ValueError, RecursionError, KeyError, TypeError):
            return []
        return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []

    def _failed(self, why: str) -> EnvironmentLacksError:
        times = self.endpoint.retries + 1
        return EnvironmentLacksError(
            f"{self.endpoint.url} doesn't answer as it should.",
            why=f"Asked {times} {'time' if times == 1 else 'times'}; the last time: {why}.",
            fix="See that the server runs and is the right one; what it answered so far is kept, so just run it again.",
        )

    def _url(self, route: str) -> str:
        return f"{self.endpoint.url.rstrip('/')}/{route}"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def key_of_endpoint(endpoint: Endpoint) -> str | None:
    """The key of an endpoint, from the environment variable that it names; None where it names none.

    Raises:
        EnvironmentLacksError: the variable isn't set.
    """
    if endpoint.key is None:
        return None
    key = os.environ.get(endpoint.key, "").strip()
    if not key:
        raise EnvironmentLacksError(
            f"The environment variable {endpoint.key} isn't set.",
            why=f"It is to hold the key of {endpoint.url}.",
            fix=f"Set it: export {endpoint.key}=...",
        )
    return key


def request_body(
    model: str,
    turns: str | list[dict[str, Any]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    tools: list[Any] | None = None,
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A request as the protocol has it: for text a completion, for messages the next turn of a chat.

    Args:
        model: The model's name at the server.
        turns: Text, or messages as chat templates take them.
        max_new_tokens: Tokens after which the answer is cut.
        temperature: 0 for the likeliest token each time.
        seed: What answers are drawn from; not sent at temperature 0.
        tools: What the model may call, as JSON Schema.
        template: Settings of the chat template, an extension that vLLM and llama-server share.
    """
    asked = {"prompt": turns} if isinstance(turns, str) else {"messages": _on_the_wire(turns)}
    drawn = {"top_p": 1.0, "seed": seed} if temperature else {}
    body = {"model": model, **asked, "max_tokens": max_new_tokens, "temperature": temperature, **drawn}
    if tools:
        body["tools"] = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    if template and not isinstance(turns, str):
        body["chat_template_kwargs"] = dict(template)
    return body


def _on_the_wire(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with their calls as the protocol has them: each with an id, its arguments as JSON text.

    Chat templates take arguments as an object, and tell a call from its result by their order.
    """
    sent, waiting = [], list[str]()
    for number, message in enumerate(messages):
        one = {name: value for name, value in message.items() if value is not None}
        if calls := one.get("tool_calls"):
            one["tool_calls"] = [_call(call, f"call_{number}_{place}") for place, call in enumerate(calls)]
            one.setdefault("content", "")
            waiting += [call["id"] for call in one["tool_calls"]]
        if one.get("role") == "tool" and waiting:
            one.setdefault("tool_call_id", waiting[0])
            waiting.pop(0)
        sent.append(one)
    return sent


def _call(call: dict[str, Any], number: str) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": call.get("id") or number,
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": text},
    }


def _reply(body: bytes) -> Reply:
    """The first choice of a response.

    Raises:
        _PassingError: it isn't one.
    """
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        raise _PassingError("its answer isn't JSON") from None
    try:
        choice = whole["choices"][0]
        message = choice["message"] if "message" in choice else {"content": choice["text"]}
        text, calls = message.get("content"), message.get("tool_calls")
        ended = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _PassingError("its answer isn't one of the protocol: no choices") from None
    if not isinstance(text, str | None) or not isinstance(calls, list | None):
        raise _PassingError("its answer isn't one of the protocol: the content isn't text")
    return Reply(_sound(text or _called(calls or [])), stopped=ended != "length")


def _sound(text: str) -> str:
    """Text that UTF-8 has words for: JSON may hold half of a surrogate pair, as where an answer was cut in a sign."""
    return text.encode("utf-8", "replace").decode()


def _called(calls: list[Any]) -> str:
    """Calls as text, so that who answers with them has said something."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    return "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)


def _said(body: bytes) -> str:
    """An error's message, in one line."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError, AttributeError):
        text = body.decode(errors="replace")
    return " ".join(_sound(str(text)).split())


def _short(text: str) -> str:
    return text[:_MOST_SHOWN].rstrip(".")


def _retry_after(given: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number of them or a date (RFC 9110, 10.2.3)."""
    if given is None:
        return None
    if given.isdecimal():
        return float(given)
    try:
        return email.utils.parsedate_to_datetime(given).timestamp() - time.time()
    except ValueError:
        return None


def _wait(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt: what the server asks for, else longer each time; never beyond a minute."""
    own = _FIRST_WAIT * 2**attempt * _JITTER.uniform(0.5, 1.5)
    return min(_LONGEST_WAIT, max(asked, 0.0) if asked is not None else own)
