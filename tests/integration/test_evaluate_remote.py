"""A model behind a server as a subject: asked once, kept, and gone on with after a kill."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.learnt import COLOURS, ROWS
from tests.support.openai_server import BROKEN, CUT, Fault, OpenAIServer, error, said, serve
from tests.support.runs import SMALL, make_plan
from tunesmith.errors import EnvironmentLacksError, UsageError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.kept import Kept, key_of
from tunesmith.evaluate.measure import Answer
from tunesmith.evaluate.rows import Question
from tunesmith.evaluate.subject import Drawing, Local, Remote, open_subject
from tunesmith.models import endpoint
from tunesmith.models.endpoint import Client
from tunesmith.models.load import load_tokenizer
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Endpoint, Evaluation

GREEDY = Drawing(16)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


def remote(server: OpenAIServer, kept: Kept | None = None, **settings: Any) -> Remote:
    return Remote("tuned", Client(Endpoint(url=server.url, model=server.model, **settings)), kept)


def asked(count: int, first: int = 1) -> list[Question]:
    return [
        Question(number, "", None, [{"role": "user", "content": f"Question {number}"}])
        for number in range(first, first + count)
    ]


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def test_answers_come_in_the_order_of_their_questions_whatever_fails() -> None:
    faults = {2: CUT, 5: BROKEN, 6: Fault(429, headers={"Retry-After": "0"}), 9: Fault(500)}
    seen: list[tuple[str, int, int | None]] = []

    def uneven(body: dict[str, Any]) -> str:
        time.sleep(0.02 * (len(said(body)) + int(said(body)[-1]) % 3))
        return f"re: {said(body)}"

    with serve(uneven, faults=faults) as server:
        found = remote(server, concurrency=5).answers(asked(12), GREEDY, lambda *call: seen.append(call))
        assert len(server.asked) == 12 + 4
        assert 2 <= server.most_at_once <= 5
    assert texts(found) == [f"re: Question {number}" for number in range(1, 13)]
    assert all(answer.stopped for answer in found)
    assert seen == [("tuned: answers", done, 12) for done in range(1, 13)]


def test_what_is_kept_is_not_asked_again_and_depends_on_all_that_matters(tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "answers.jsonl"
    with serve() as server:
        first = remote(server, Kept(path)).answers(asked(4), GREEDY, silent)
        assert len(server.asked) == 4
        assert remote(server, Kept(path)).answers(asked(4), GREEDY, silent) == first
        assert len(server.asked) == 4 + 1, "one, to see that the same model is there"
        remote(server, Kept(path)).answers(asked(5), GREEDY, silent)
        assert len(server.asked) == 5 + 2
        kept = remote(server, Kept(path))
        for number, (limit, *drawn) in enumerate([(17, 0), (16, 0.5), (16, 0.5, 1), (16, 0.6, 1)], start=8):
            kept.answers(asked(1), Drawing(limit, *drawn), silent)
            assert len(server.asked) == number
        remote(server, Kept(path)).answers(asked(1), Drawing(16, 0.6, 1), silent)
        assert len(server.asked) == 11, "what is drawn tells nothing of who drew it"
        server.model = "other"
        remote(server, Kept(path)).answers(asked(1), GREEDY, silent)
        assert len(server.asked) == 12
        server.told = {"meta": {"n_params": 7}, "created": 1}
        remote(server, Kept(path)).answers(asked(1), GREEDY, silent)
        assert len(server.asked) == 13
        server.told["created"] = 2
        remote(server, Kept(path)).answers(asked(1), GREEDY, silent)
        assert len(server.asked) == 14, "it is still the same model, which is seen by one question"
    with serve() as elsewhere:
        remote(elsewhere, Kept(path)).answers(asked(1), GREEDY, silent)
        assert len(elsewhere.asked) == 1


def test_answers_of_another_model_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with serve(lambda body: "yes" if "1" in said(body) else "a longer answer") as server:
        remote(server, Kept(path)).answers(asked(3), GREEDY, silent)
        server.answer = lambda body: "yes"
        subject = remote(server, Kept(path))
        assert texts(subject.answers(asked(4), GREEDY, silent)) == ["yes"] * 4
        assert said(server.asked[3]) != "Question 1", "the longest answer says most of who gave it"
        assert (len(server.asked), subject.resumed.dropped, subject.resumed.used) == (3 + 1 + 4, 3, set())
        server.faults = {9: Fault(400)}
        subject = remote(server, Kept(path))
        assert texts(subject.answers(asked(4), GREEDY, silent)) == ["yes"] * 4
        assert subject.resumed.dropped == 4, "what answered refuses now"
        assert path.read_text(encoding="utf-8").count("\n") == 4
        subject = remote(server, Kept(path))
        subject.answers(asked(5), GREEDY, silent)
        assert (subject.resumed.dropped, len(subject.resumed.used)) == (0, 4)


def test_equal_questions_are_asked_once_unless_they_are_drawn_anew() -> None:
    turns = [{"role": "user", "content": "Hello"}]
    same = [Question(number, "", None, turns) for number in (1, 2, 3)]
    with serve() as server:
        assert len(set(texts(remote(server).answers(same, GREEDY, silent)))) == 1
        assert len(server.asked) == 1
        remote(server).answers(same, Drawing(16, 0.7), silent)
        assert len(server.asked) == 4
        assert len({body["seed"] for body in server.asked[1:]}) == 3


def test_a_server_that_dies_leaves_what_it_answered(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with serve(faults=lambda number, body: Fault(500) if number > 6 else None) as server:
        with pytest.raises(EnvironmentLacksError, match="doesn't answer"):
            remote(server, Kept(path), retries=1, concurrency=2).answers(asked(20), GREEDY, silent)
        assert len(server.asked) < 24, "what was still waiting isn't asked: all would be 6 + 2 * 14"
        before = len(server.asked)
        server.faults = {}
        found = remote(server, Kept(path)).answers(asked(20), GREEDY, silent)
        assert len(server.asked) == before + 14 + 1
    assert texts(found) == [f"You said: Question {number}" for number in range(1, 21)]


def test_a_question_that_is_refused_is_an_answer_without_words_and_is_asked_again_next_time(tmp_path: Path) -> None:
    def refuse(number: int, body: dict[str, Any]) -> Fault | None:
        return Fault(400, error("context length exceeded")) if said(body) == "Question 2" else None

    path = tmp_path / "answers.jsonl"
    with serve(faults=refuse) as server:
        found = remote(server, Kept(path)).answers(asked(3), GREEDY, silent)
        assert found[1] == Answer("", False, [], "status 400: context length exceeded")
        assert [answer.refused for answer in found[::2]] == ["", ""]
        server.faults = {}
        assert remote(server, Kept(path)).answers(asked(3), GREEDY, silent)[1].text == "You said: Question 2"
        assert len(server.asked) == 3 + 1 + 1, "the refused one, and one of those that were answered"
        server.faults = lambda number, body: Fault(422, error("no chat template"))
        with pytest.raises(UsageError) as raised:
            remote(server).answers(asked(3), GREEDY, silent)
    assert raised.value.what == f"{server.url} refuses every question."
    assert raised.value.why == "status 422: no chat template"


def test_tools_and_the_template_s_settings_are_handed_on() -> None:
    tool = {"type": "function", "function": {"name": "colour"}}
    turns = [{"role": "user", "content": "Hello"}]
    with serve() as server:
        remote(server).answers([Question(1, "", None, turns, [tool], {"enable_thinking": False})], GREEDY, silent)
    assert server.asked[0]["tools"] == [tool]
    assert server.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_tokens_of_an_answer_are_counted_where_there_is_a_tokenizer() -> None:
    tokenizer = load_tokenizer(SMALL)
    words = tokenizer("red lamp", add_special_tokens=False)["input_ids"]
    with serve(lambda body: "red lamp") as server:
        subject = Remote("tuned", Client(Endpoint(url=server.url, model="served")), tokenizer=tokenizer)
        assert subject.answers(asked(1), GREEDY, silent) == [Answer("red lamp", True, [*words, tokenizer.eos_token_id])]
        server.finish = "length"
        assert subject.answers(asked(1), GREEDY, silent) == [Answer("red lamp", False, words)]
        assert remote(server).answers(asked(1), GREEDY, silent)[0].ids == []
        assert subject.answers([], GREEDY, silent) == []


ASK = """
import sys
from pathlib import Path
from tests.integration.test_evaluate_remote import GREEDY, asked
from tunesmith.evaluate.kept import Kept
from tunesmith.evaluate.subject import Remote
from tunesmith.models.endpoint import Client
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Endpoint

client = Client(Endpoint(url=sys.argv[1], model="served", concurrency=3))
answers = Remote("tuned", client, Kept(Path(sys.argv[2]))).answers(asked(30), GREEDY, silent)
print(len(answers))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    enough = threading.Event()
    done: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        done.append(said(body))
        if len(done) > 12:
            enough.set()
            time.sleep(0.2)
        return f"re: {said(body)}"

    with serve(answer) as server:
        command = [sys.executable, "-c", ASK, server.url, str(path)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = path.read_text(encoding="utf-8").count("\n")
        assert 8 <= kept < 30
        before = len(server.asked)
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert again.stdout == "30\n"
        assert len(server.asked) - before == 30 - kept + 1
    assert path.read_text(encoding="utf-8").count("\n") == 30


def test_another_model_is_told_though_answers_of_before_count_already(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    with serve(said) as server:
        first = remote(server, Kept(path))
        for start in (1, 11):
            first.answers(asked(3, start), GREEDY, silent)
        again = remote(server, Kept(path))
        again.answers(asked(3), GREEDY, silent)
        server.answer = lambda body: "no idea"
        with pytest.raises(EnvironmentLacksError, match="answers otherwise than before"):
            again.answers(asked(3, 11), GREEDY, silent)
        assert not path.exists()
        assert texts(remote(server, Kept(path)).answers(asked(3), GREEDY, silent)) == ["no idea"] * 3


def test_answers_of_this_start_are_not_counted_among_those_of_before(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    with serve(said) as server:
        remote(server, Kept(path)).answers(asked(3, 11), GREEDY, silent)
        server.answer = lambda body: "no idea"
        again = remote(server, Kept(path))
        again.answers(asked(2), GREEDY, silent)
        assert texts(again.answers(asked(3, 11), GREEDY, silent)) == ["no idea"] * 3
    assert (again.resumed.dropped, again.resumed.used) == (3, set())


def test_a_line_that_was_cut_short_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    kept.put("one", {"text": "Läufer\u2028"})
    kept.put("two", [1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "three", "val')
    again = Kept(path)
    assert (again.get("one"), again.get("two"), again.get("three")) == ({"text": "Läufer\u2028"}, [1], None)
    again.put("three", 3)
    assert path.read_bytes() == whole + b'{"key": "three", "value": 3}\n'
    path.write_bytes(whole + b'{"key": "fo{"key": "five", "value": 5}\n[1]\n\xff\n')
    assert [Kept(path).get(key) for key in ("one", "two", "five")] == [{"text": "Läufer\u2028"}, [1], None]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError):
        Kept(tmp_path / "file" / "kept.jsonl")


@given(st.lists(st.tuples(st.text(max_size=5), st.integers()), max_size=4), st.integers(0, 400))
def test_wherever_a_file_is_cut_what_is_left_is_right(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("kept") / "kept.jsonl"
    kept = Kept(path)
    for key, value in entries:
        kept.put(key, value)
    if not entries:
        return
    path.write_bytes(path.read_bytes()[:cut])
    again = Kept(path)
    for key, _ in entries:
        assert again.get(key) in [None, *(value for name, value in entries if name == key)]
    again.put("last", 7)
    assert Kept(path).get("last") == 7


def test_keys_tell_all_parts_apart() -> None:
    parts: list[tuple[Any, ...]] = [("a", "b"), ("ab",), ("a", {"b": 1}), ("a", {"b": 2}), ("a", ["b"]), ()]
    assert len({key_of(*one) for one in parts}) == len(parts)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def test_speakers_are_endpoints_or_models_that_chat(tmp_path: Path) -> None:
    with serve() as server:
        speaker = open_subject(Endpoint(url=server.url, model="served"), "judge", device="cpu")
        assert (speaker.name, texts(speaker.answers(asked(1), GREEDY, silent))) == ("judge", ["You said: Question 1"])
    local = open_subject("builtin:small", "simulator", device="cpu", batch_size=3)
    assert isinstance(local, Local)
    assert (local.name, local.batch_size, local.model.training) == ("simulator", 3, False)
    assert local.answers(asked(2), GREEDY, silent)[0].ids
    local.model.save_pretrained(tmp_path)
    local.tokenizer.chat_template = None
    local.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="can't be the judge"):
        open_subject(str(tmp_path), "judge", device="cpu")
    with pytest.raises(UsageError, match="There is no model"):
        open_subject(str(tmp_path / "none"), "judge", device="cpu")


def test_a_run_is_evaluated_through_its_server_and_what_it_refused_is_told(tmp_path: Path) -> None:
    def refuse(number: int, body: dict[str, Any]) -> Fault | None:
        return Fault(400, error("context length exceeded")) if said(body).endswith("number 8?") else None

    def know(body: dict[str, Any]) -> str:
        return COLOURS[int(said(body).rstrip("?")[-1]) - 1]

    make_plan(tmp_path, ROWS)
    (tmp_path / "model").symlink_to(SMALL)
    with serve(know, faults=refuse) as server:
        settings = Evaluation(
            tasks=["exact_match"], endpoint=Endpoint(url=server.url, model="served"), regression=False
        )
        report = evaluate(tmp_path, settings)
    (match,) = (one for one in report.comparisons if one.metric == "exact_match")
    assert (match.base, match.tuned, match.rows) == (0.0, 1.0, 7), "what was refused is no wrong answer"
    (told,) = (finding for finding in report.findings if finding.code == "E015")
    assert "1 of 8 questions got no answer from the tuned model: status 400: context length exceeded." in told.what
    assert report.tuned is not None
    assert (report.tuned.answers, report.tuned.stop_rate, report.tuned.empty) == (7, 1.0, 0.0)
    assert not {"E004", "E031"} & {finding.code for finding in report.findings}
    assert (report.tuned.kind, report.tuned.name) == ("endpoint", f"served at {server.url}")


def test_the_remedy_fits_servers_that_say_nothing_or_the_same(tmp_path: Path) -> None:
    make_plan(tmp_path, ROWS)
    (tmp_path / "model").symlink_to(SMALL)

    def told(tuned: str) -> dict[str, str]:
        with serve(lambda body: "grey") as before, serve(lambda body: tuned) as after:
            servers = {name: Endpoint(url=one.url, model="served") for name, one in (("b", before), ("t", after))}
            settings = Evaluation(
                tasks=["exact_match"], base_endpoint=servers["b"], endpoint=servers["t"], regression=False
            )
            return {one.code: one.fix for one in evaluate(tmp_path, settings).findings}

    silent_server, same = told(" "), told("grey ")
    assert "E058" in silent_server
    assert "why all answers of the tuned model are empty" in silent_server["E002"]
    assert "E058" not in same
    assert "hold out more rows first" in same["E002"]
    assert "E036" in same
