"""A client of OpenAI's protocol against a real server that fails in every way that servers do."""

import json
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.openai_server import BROKEN, CUT, SHAPELESS, Fault, error, said, serve, slow
from tunesmith.errors import EnvironmentLacksError, TunesmithError, UsageError
from tunesmith.models import endpoint
from tunesmith.models.endpoint import Client, RefusedError, Reply, key_of_endpoint, request_body
from tunesmith.recipe.evaluation import Endpoint

USER = {"role": "user", "content": "Which colour?"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waits for, without the waiting."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr(endpoint, "time", clock)
    return slept


def body(**changes: Any) -> dict[str, Any]:
    return request_body("served", [USER], max_new_tokens=8) | changes


def test_an_answer_comes_with_whether_it_ended_by_itself() -> None:
    with serve(lambda body: f"{said(body)} Red.") as server:
        client = Client(Endpoint(url=server.url, model="served"))
        assert client.ask(body()) == Reply("Which colour? Red.", stopped=True)
        server.finish = "length"
        assert client.ask(body()) == Reply("Which colour? Red.", stopped=False)
        assert client.ask(request_body("served", "Once", max_new_tokens=8)) == Reply("Once Red.", stopped=False)
        client.close()
    assert [asked["path"] for asked in server.asked] == ["/v1/chat/completions"] * 2 + ["/v1/completions"]
    assert "authorization" not in {name.lower() for headers in server.headers for name in headers}


@pytest.mark.parametrize(
    "fault",
    [Fault(429), Fault(500), Fault(503), BROKEN, SHAPELESS, CUT, Fault(body=b"[]"), Fault(body=b'{"choices": [7]}')],
    ids=["429", "500", "503", "broken", "shapeless", "cut", "list", "number"],
)
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    with serve(lambda body: "red", faults={1: fault, 2: fault}) as server:
        assert Client(Endpoint(url=server.url, model="served", retries=2)).ask(body()).text == "red"
        assert len(server.asked) == 3


def test_a_slow_answer_is_given_up_and_asked_for_again() -> None:
    with serve(lambda body: "red", faults={1: slow(3)}) as server:
        began = time.monotonic()
        assert Client(Endpoint(url=server.url, model="served", timeout=0.3, retries=1)).ask(body()).text == "red"
        assert time.monotonic() - began < 2


def test_tries_are_bounded_and_the_last_failure_is_told() -> None:
    with serve(faults=lambda number, body: Fault(500, error("out of\nmemory."))) as server:
        with pytest.raises(EnvironmentLacksError) as raised:
            Client(Endpoint(url=server.url, model="served", retries=3)).ask(body())
        assert len(server.asked) == 4
    assert raised.value.what == f"{server.url} doesn't answer as it should."
    assert raised.value.why == "Asked 4 times; the last time: status 500: out of memory."


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (BROKEN, "its answer isn't JSON"),
        (Fault(body=b"[" * 100_000), "its answer isn't JSON"),
        (SHAPELESS, "no choices"),
        (Fault(body=b'{"choices": [{"message": {"content": ["a"]}}]}'), "the content isn't text"),
        (slow(2), "it took more than 0.3 s"),
    ],
    ids=["broken", "deep", "shapeless", "parts", "slow"],
)
def test_why_it_failed_is_told(fault: Fault, why: str) -> None:
    with serve(faults={1: fault}) as server, pytest.raises(EnvironmentLacksError) as raised:
        Client(Endpoint(url=server.url, model="served", retries=0, timeout=0.3)).ask(body())
    assert raised.value.why.startswith("Asked 1 time; the last time: ")
    assert why in raised.value.why


def test_a_body_that_drips_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_MOST_BYTES", 100)
    with serve(lambda body: "long " * 100) as server, pytest.raises(EnvironmentLacksError) as raised:
        Client(Endpoint(url=server.url, model="served", retries=0)).ask(body())
    assert "its answer doesn't end" in raised.value.why
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with serve(lambda body: "red") as server, pytest.raises(EnvironmentLacksError) as raised:
        Client(Endpoint(url=server.url, model="served", retries=0, timeout=5)).ask(body())
    assert "it took more than 5 s" in raised.value.why


def test_a_server_that_is_down_is_named() -> None:
    with serve() as server:
        pass
    with pytest.raises(EnvironmentLacksError, match=server.url):
        Client(Endpoint(url=server.url, model="served", retries=1)).ask(body())


def test_waits_grow_and_a_server_s_wish_comes_first(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 1.0)
    wishes = ["3", "600", "soon", formatdate(time.time() + 20, usegmt=True), "-1"]
    faults = {number: Fault(429, headers={"Retry-After": wish}) for number, wish in enumerate(wishes, start=1)}
    with serve(lambda body: "red", faults=faults | dict.fromkeys(range(6, 12), Fault(503))) as server:
        assert Client(Endpoint(url=server.url, model="served", retries=11)).ask(body()).text == "red"
    assert waits[:2] == [3, 60]
    assert 2 <= waits[2] <= 6, "a wish that can't be read is none: 1 * 2**2, give or take half"
    assert 17 < waits[3] <= 21
    assert 8 <= waits[4] <= 24
    assert all(16 <= wait <= 60 for wait in waits[5:])
    assert waits[-1] == 60


def test_a_past_date_asks_for_no_wait(waits: list[float]) -> None:
    past = Fault(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    with serve(lambda body: "red", faults={1: past}) as server:
        Client(Endpoint(url=server.url, model="served")).ask(body())
    assert waits == [0]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_asked_once(status: int) -> None:
    refusal = Fault(status, error("This model's maximum context length is 64 tokens."))
    with serve(faults=lambda number, body: refusal) as server:
        with pytest.raises(RefusedError) as raised:
            Client(Endpoint(url=server.url, model="served")).ask(body())
        assert len(server.asked) == 1
    assert raised.value.why == f"status {status}: This model's maximum context length is 64 tokens"


def test_a_missing_model_or_route_is_told_with_the_models_that_are_there() -> None:
    with serve(model="llama", completions=False) as server:
        with pytest.raises(UsageError) as raised:
            Client(Endpoint(url=server.url, model="lama")).ask(body(model="lama"))
        assert raised.value.what == f"{server.url} has no model lama, or no route /chat/completions."
        assert raised.value.why == "status 404: The model `lama` does not exist"
        assert raised.value.fix.startswith("It has llama. ")
        with pytest.raises(UsageError, match="no route /completions"):
            Client(Endpoint(url=server.url, model="llama")).ask(request_body("llama", "Once", max_new_tokens=8))
        with pytest.raises(UsageError) as raised:
            Client(Endpoint(url=server.url.removesuffix("/v1"), model="llama")).ask(body())
        assert raised.value.fix == "The address ends in /v1 for most servers."
        assert len(server.asked) == 3


def test_a_redirect_or_a_strange_status_says_so() -> None:
    moved = Fault(302, headers={"Location": "http://127.0.0.1:9/"})
    with serve(faults={1: moved}) as server, pytest.raises(UsageError, match="answers with status 302"):
        Client(Endpoint(url=server.url, model="served")).ask(body())


@pytest.mark.parametrize(
    ("status", "raises"), [(402, EnvironmentLacksError), (507, EnvironmentLacksError), (405, UsageError)]
)
def test_a_server_that_wants_something_first_is_no_wrong_address(status: int, raises: type[TunesmithError]) -> None:
    with serve(lambda body: "red", faults={2: Fault(status, error("Your credits are used up."))}) as server:
        client = Client(Endpoint(url=server.url, model="served"))
        client.ask(body())
        with pytest.raises(raises) as raised:
            client.ask(body())
        assert len(server.asked) == 2
    assert raised.value.what == f"{server.url} answers with status {status}."
    assert raised.value.why == f"status {status}: Your credits are used up"
    assert ("address" in raised.value.fix) is (raises is UsageError)


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", " s3cret ")
    with serve(lambda body: "red", key="s3cret", faults={2: Fault(400, error("not for s3cret"))}) as server:
        client = Client(Endpoint(url=server.url, model="served", key="SECRET_KEY"))
        assert client.ask(body()).text == "red"
        with pytest.raises(RefusedError) as refused:
            client.ask(body())
        assert refused.value.why == "status 400: not for ***"
        server.key = "other"
        with pytest.raises(UsageError) as raised:
            client.ask(body())
        assert raised.value.what == f"{server.url} refuses the key in SECRET_KEY."
        with pytest.raises(UsageError) as raised:
            Client(Endpoint(url=server.url, model="served")).ask(body())
        assert raised.value.what == f"{server.url} refuses a request without a key."
        assert "key: NAME" in raised.value.fix


def test_no_part_of_a_key_is_told_where_a_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-0123456789abcdef")
    echoes = {number: Fault(400, error(f"{'x' * (175 + 4 * number)} sk-0123456789abcdef")) for number in range(1, 8)}
    with serve(faults=echoes) as server:
        client = Client(Endpoint(url=server.url, model="served", key="SECRET_KEY"))
        for _ in echoes:
            with pytest.raises(RefusedError) as refused:
                client.ask(body())
            assert "s" not in refused.value.why.removeprefix("status")


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    half = Fault(body=b'{"choices": [{"message": {"content": "hello \\ud83d"}, "finish_reason": "length"}]}')
    wrong = Fault(400, b'{"error": {"message": "no \\ud83d"}}')
    with serve(faults={1: half, 2: wrong}) as server:
        client = Client(Endpoint(url=server.url, model="served"))
        assert client.ask(body()) == Reply("hello ?", stopped=False)
        with pytest.raises(RefusedError) as refused:
            client.ask(body())
    assert refused.value.why == "status 400: no ?"


@pytest.mark.parametrize(
    ("told", "identity"),
    [
        ({"created": 7, "meta": {"n_params": 9}}, {"id": "served", "owned_by": "test", "meta": {"n_params": 9}}),
        ({"id": "by/path", "created": 8}, {"id": "by/path", "owned_by": "test"}),
    ],
)
def test_what_a_server_tells_of_its_model_is_told_without_the_time(
    told: dict[str, Any], identity: dict[str, Any]
) -> None:
    with serve(told=told) as server:
        assert Client(Endpoint(url=server.url, model="served")).identity == identity
        assert Client(Endpoint(url=f"{server.url}/none", model="served")).identity == {}
    assert Client(Endpoint(url=server.url, model="served")).identity == {}, "it is down"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set_is_told_at_once(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_KEY", value)
    with pytest.raises(EnvironmentLacksError, match="NO_KEY isn't set"):
        Client(Endpoint(url="http://127.0.0.1:9/v1", model="m", key="NO_KEY"))
    assert key_of_endpoint(Endpoint(url="http://127.0.0.1:9/v1", model="m")) is None


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(lambda body: "red") as server:
        assert Client(Endpoint(url=server.url, model="served", retries=0)).ask(body()).text == "red"
        with pytest.raises(EnvironmentLacksError) as raised:
            Client(Endpoint(url="http://model.invalid/v1", model="served", retries=0)).ask(body())
        assert "refused" in raised.value.why, "elsewhere the proxy is asked, and none listens there"


def test_requests_say_what_the_protocol_has_words_for() -> None:
    greedy = request_body("m", [USER], max_new_tokens=9, seed=4)
    assert greedy == {"model": "m", "messages": [USER], "max_tokens": 9, "temperature": 0.0}
    drawn = request_body("m", "Once", max_new_tokens=9, temperature=0.7, seed=4, template={"enable_thinking": False})
    assert drawn == {
        "model": "m",
        "prompt": "Once",
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 1.0,
        "seed": 4,
    }
    bare, whole = {"name": "colour", "parameters": {}}, {"type": "function", "function": {"name": "size"}}
    asked = request_body("m", [USER], max_new_tokens=9, tools=[bare, whole], template={"enable_thinking": False})
    assert asked["tools"] == [{"type": "function", "function": bare}, whole]
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}


def test_calls_get_ids_and_text_as_arguments() -> None:
    call = {"function": {"name": "colour", "arguments": {"of": "Läufer"}}}
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call, {"name": "size", "arguments": "{}"}]},
        {"role": "tool", "content": "red"},
        {"role": "tool", "content": "9", "tool_call_id": None},
    ]
    sent = request_body("m", turns, max_new_tokens=9)["messages"]
    assert sent[0] == USER
    assert sent[1]["content"] == ""
    first, second = sent[1]["tool_calls"]
    assert first["function"] == {"name": "colour", "arguments": '{"of": "Läufer"}'}
    assert second["function"] == {"name": "size", "arguments": "{}"}
    assert first["type"] == second["type"] == "function"
    assert [sent[2]["tool_call_id"], sent[3]["tool_call_id"]] == [first["id"], second["id"]]
    assert first["id"] != second["id"]
    assert turns[1]["content"] is None, "the row itself stays as it is"


def test_calls_are_an_answer_in_words() -> None:
    function = {"name": "colour", "arguments": "{}"}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    with serve(lambda body: message) as server:
        reply = Client(Endpoint(url=server.url, model="served")).ask(body())
    assert json.loads(reply.text) == function


@pytest.mark.parametrize("given", ["", None])
def test_an_empty_answer_is_an_answer(given: str | None) -> None:
    with serve(lambda body: given) as server:
        assert Client(Endpoint(url=server.url, model="served")).ask(body()) == Reply("", stopped=True)


WORDS = ["choices", "message", "content", "text", "tool_calls", "function", "finish_reason", "error"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
)
CHOICES = st.fixed_dictionaries({"choices": st.lists(JSON, max_size=2)}) | JSON


@given(CHOICES)
def test_no_answer_of_a_server_breaks_the_client(whole: Any) -> None:
    try:
        reply = endpoint._reply(json.dumps(whole).encode())
    except endpoint._PassingError:
        return
    reply.text.encode()


@given(st.binary(max_size=60) | JSON.map(lambda whole: json.dumps(whole).encode()))
def test_no_error_of_a_server_breaks_the_client(body: bytes) -> None:
    shown = endpoint._short(endpoint._said(body))
    assert len(shown) <= 200
    shown.encode()
    assert "\n" not in shown


@given(st.text(max_size=30))
def test_no_wish_of_a_server_breaks_the_client(wish: str) -> None:
    wait = endpoint._wait(3, endpoint._retry_after(wish))
    assert 0 <= wait <= 60


@pytest.mark.parametrize("url", ["https://me:pass@host/v1", "http://host/v1?api_key=s3cret", "http://host/v1#s3cret"])
def test_an_address_has_no_room_for_a_secret(url: str) -> None:
    with pytest.raises(ValidationError):
        Endpoint(url=url, model="m")
