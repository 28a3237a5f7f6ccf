"""Conversations over a real connection and with loaded models, and what is left of them when the process is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.conversing import Scripted
from tests.support.learnt import COLOURS, ROWS
from tests.support.openai_server import Fault, OpenAIServer, said, serve
from tests.support.runs import make_plan
from tunesmith.errors import EnvironmentLacksError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.conversations.dialogue import Dialogues
from tunesmith.evaluate.conversations.grading import GRADES
from tunesmith.evaluate.conversations.transcripts import FOLDER
from tunesmith.evaluate.outcome import Outcome
from tunesmith.evaluate.subject import open_subject
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Conversations, Endpoint, Evaluation
from tunesmith.recipe.personas import Persona
from tunesmith.records import EvalReport
from tunesmith.rules import FindingsError

TALK = """
import sys
from pathlib import Path

from tunesmith.evaluate.conversations.dialogue import Dialogues
from tunesmith.evaluate.conversations.transcripts import FOLDER
from tunesmith.evaluate.kept import Kept
from tunesmith.evaluate.outcome import Outcome
from tunesmith.evaluate.subject import open_subject
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Conversations, Endpoint
from tunesmith.recipe.personas import Persona

folder, url = Path(sys.argv[1]), sys.argv[2]
endpoint = Endpoint(url=url, model="served", concurrency=2)
settings = Conversations(personas=4, simulator=endpoint, judge=endpoint, per_persona=1, turns=3)
personas = [Persona(name=f"P{number}", description=f"Persona {number}.") for number in range(4)]
subjects = {
    name: open_subject(endpoint, name, device="cpu", kept=Kept(folder / FOLDER / f"{name}.kept"))
    for name in ("simulator", "base")
}
Dialogues(personas, subjects["simulator"], settings, lambda *pair: Outcome(), folder).take(subjects["base"], silent)
assert "torch" not in sys.modules
"""
REQUESTS = 4 * 3 * 2
"""Of four conversations, three turns each of user and model."""


def answer(body: dict[str, Any]) -> str:
    """The same for the same question, and another for another."""
    return f"Word {sum(map(ord, json.dumps(body['messages']))) % 997} of seed {body['seed'] % 997}"


def start(folder: Path, server: OpenAIServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TALK, str(folder), server.url])


def asked(server: OpenAIServer) -> list[str]:
    return [json.dumps(body, sort_keys=True) for body in server.asked]


def test_a_killed_process_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    half = threading.Event()
    go_on = threading.Event()

    def stuck(number: int, body: dict[str, Any]) -> None:
        if number > REQUESTS // 2 and not go_on.is_set():
            half.set()
            go_on.wait(30)

    with serve(answer, faults=stuck) as server:
        process = start(tmp_path / "killed", server)
        assert half.wait(30)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        unanswered = len(server.asked) - REQUESTS // 2
        before = asked(server)
        go_on.set()
        assert not (tmp_path / "killed" / FOLDER / "base.jsonl").exists()
        assert start(tmp_path / "killed", server).wait(60) == 0
        after = asked(server)[len(before) :]
    assert 1 <= unanswered <= 2
    assert len(after) == REQUESTS // 2
    assert set(after) & set(before) == set(before[REQUESTS // 2 :])
    with serve(answer) as server:
        assert start(tmp_path / "whole", server).wait(60) == 0
        assert sorted(asked(server)) == sorted({*before, *after})
    texts = [(tmp_path / name / FOLDER / "base.jsonl").read_bytes() for name in ("killed", "whole")]
    assert texts[0] == texts[1]


def test_a_server_that_fails_now_and_then_changes_nothing(tmp_path: Path) -> None:
    with serve(answer) as server:
        assert start(tmp_path / "well", server).wait(60) == 0
    faults = {3: Fault(status=500), 9: Fault(body=b"{"), 15: Fault(status=429, headers={"retry-after": "0"})}
    with serve(answer, faults=faults) as server:
        assert start(tmp_path / "ill", server).wait(60) == 0
        assert len(server.asked) == REQUESTS + len(faults)
    texts = [(tmp_path / name / FOLDER / "base.jsonl").read_bytes() for name in ("well", "ill")]
    assert texts[0] == texts[1]


def run_folder(folder: Path, result: Path) -> Path:
    """A run whose users ask what it learnt: eight personas, each with an opening of its own."""
    folder.mkdir(parents=True)
    make_plan(folder, ROWS)
    (folder / "model").symlink_to(result)
    personas = [
        {"name": f"P{number}", "description": "Somebody.", "opening": row["prompt"][0]["content"]}
        for number, row in enumerate(ROWS)
    ]
    (folder / "personas.jsonl").write_text("".join(json.dumps(one) + "\n" for one in personas), encoding="utf-8")
    return folder


def settings(folder: Path, speaker: Endpoint | str, **changes: Any) -> Evaluation:
    who = {"personas": str(folder / "personas.jsonl"), "simulator": speaker, "judge": speaker}
    conversations = Conversations(**{**who, "per_persona": 1, "turns": 2, "max_new_tokens": 12, **changes})
    return Evaluation(tasks=["loss"], regression=False, conversations=conversations)


def scripted(body: dict[str, Any]) -> str:
    """A user who ends after the first answer, and a judge who likes lines that are a colour."""
    text = said(body)
    if "You play a person" in text:
        return "[END]"
    if text == "Hello":
        return "Here I am."
    form = json.loads(text[text.rindex('{"reason') :].replace("GRADE", "1"))
    first, second = (name for name in form if name != "reason")
    shown = text.partition(f"{first.capitalize()}:")[2].split(f"{second.capitalize()}:")
    for name, turns in zip((first, second), shown, strict=True):
        likes = any(line.strip() in COLOURS for line in turns.splitlines())
        form[name] = dict.fromkeys(form[name], 5 if likes else 1)
    return json.dumps(form)


def transcripts(folder: Path, arm: str) -> list[dict[str, Any]]:
    lines = (folder / FOLDER / f"{arm}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kept(folder: Path, name: str) -> list[str]:
    return (folder / FOLDER / f"{name}-answers.jsonl").read_text(encoding="utf-8").splitlines()


def kept_files(folder: Path) -> list[Path]:
    return list((folder / FOLDER).glob("*-answers.jsonl"))


def test_both_models_talk_with_the_users_of_a_server_and_are_graded(tmp_path: Path, knowing: Path) -> None:
    folder = run_folder(tmp_path / "run", knowing)
    with serve(scripted) as server:
        endpoint = Endpoint(url=server.url, model="served")
        report = evaluate(folder, settings(folder, endpoint, temperature=0))
        assert said(server.asked[0]) == "Hello"
        asked, server.asked = server.asked, []
        assert kept_files(folder) == [], "another judge may answer there the next time"
        again = evaluate(folder, settings(folder, endpoint, temperature=0))
        assert sorted(map(said, server.asked)) == sorted(map(said, asked))
    assert (folder / GRADES).exists()
    for arm in ("base", "tuned"):
        said_by = transcripts(folder, arm)
        assert [one["persona"] for one in said_by] == [f"P{number}" for number in range(8)]
        assert all(one["ended"] == "done" and len(one["messages"]) == 2 for one in said_by)
    assert [one["messages"][1]["content"] for one in transcripts(folder, "tuned")] == COLOURS
    compared = [one for one in report.comparisons if one.suite == "conversations"]
    assert compared
    assert compared[0].significant
    assert (compared[0].base, compared[0].tuned) == (0.0, 1.0)
    assert again.comparisons == report.comparisons
    assert EvalReport.load(folder) == again


KILLED = """
import os
import signal
import sys
from pathlib import Path

from tunesmith.evaluate import evaluate
from tunesmith.recipe.evaluation import Evaluation

said = []


def kill_half_way(label, done, total):
    said.append(label)
    if said.count("tuned: answers") == 2:
        os.kill(os.getpid(), signal.SIGKILL)


evaluate(Path(sys.argv[1]), Evaluation.model_validate_json(sys.argv[2]), progress=kill_half_way)
"""


def test_personas_that_the_simulator_makes_up_talk_with_both_models(tmp_path: Path, knowing: Path) -> None:
    def somebody(body: dict[str, Any]) -> str:
        if "Make up one new person" not in said(body):
            return scripted(body)
        name = f"P{len(server.asked) - 1}"
        texts = {"description": f"{name} likes riddles of its own kind a lot", "goal": f"{name} wants the {name}th one"}
        return json.dumps({"name": name, **texts, "opening": f"Tell {name} a riddle, if you know one for {name}!"})

    folder = run_folder(tmp_path / "run", knowing)
    with serve(somebody) as server:
        endpoint = Endpoint(url=server.url, model="served", concurrency=1)
        report = evaluate(folder, settings(folder, endpoint, personas=2, temperature=0))
    assert report.judging is not None
    assert (report.judging.personas, report.judging.conversations) == (2, 2)
    assert [one["persona"] for one in transcripts(folder, "base")] == ["P1", "P2"]
    assert transcripts(folder, "base")[0]["messages"][0]["content"] == "Tell P1 a riddle, if you know one for P1!"
    assert "E061" in {found.code for found in report.findings}


@pytest.mark.slow
def test_conversations_of_loaded_models_go_on_after_a_kill(tmp_path: Path, knowing: Path) -> None:
    folder, whole = (run_folder(tmp_path / name, knowing) for name in ("killed", "whole"))
    told: list[tuple[str, int, int | None]] = []
    with serve(scripted) as server:
        judge = Endpoint(url=server.url, model="served")
        asked = settings(folder, judge, simulator="builtin:small", temperature=0.8)
        asked = asked.model_copy(update={"batch_size": 4})
        process = subprocess.run([sys.executable, "-c", KILLED, str(folder), asked.model_dump_json()], check=False)
        assert process.returncode == -signal.SIGKILL
        assert (folder / FOLDER / "base.jsonl").exists()
        assert not (folder / FOLDER / "tuned.jsonl").exists()
        assert len(kept(folder, "tuned")) == 4, "one batch of the two that it answered"
        report = evaluate(folder, asked, progress=lambda *call: told.append(call))
        uninterrupted = evaluate(whole, asked)
    assert not any(label == "base: answers" for label, *_ in told), "all that base said is kept"
    for arm in ("base", "tuned"):
        assert len(transcripts(folder, arm)) == 8
        assert transcripts(folder, arm) == transcripts(whole, arm)
    turns = sum(len(one["messages"]) // 2 for one in transcripts(folder, "tuned"))
    answered = sum(total or 0 for label, done, total in told if label == "tuned: answers" and done == total)
    assert answered == turns - 4, "no answer was given twice"
    assert report.judging is not None
    assert (report.judging.simulator, report.judging.conversations) == ("builtin:small", 8)
    assert report.judging == uninterrupted.judging


def test_a_server_that_is_down_is_told_and_leaves_what_was_said(tmp_path: Path, knowing: Path) -> None:
    folder = run_folder(tmp_path / "run", knowing)
    with serve(scripted, faults=lambda number, body: Fault(status=500) if number > 4 else None) as server:
        endpoint = Endpoint(url=server.url, model="served", retries=0, concurrency=1)
        with pytest.raises(EnvironmentLacksError, match="doesn't answer as it should"):
            evaluate(folder, settings(folder, endpoint, temperature=0))
    assert len(kept(folder, "simulator")) == 3, "one of four requests was a greeting"
    evaluate(folder, Evaluation(tasks=["loss"], regression=False))
    assert not (folder / "evaluation/conversations/simulator-answers.jsonl").exists(), "another model may be there now"


def test_a_server_that_refuses_all_that_is_left_costs_no_more_than_these_turns(tmp_path: Path) -> None:
    persona = Persona(name="P", description="Somebody.", opening="Hello.")
    with serve(answer, faults={2: Fault(status=400)}) as server:
        endpoint = Endpoint(url=server.url, model="served")
        asked = Conversations(personas=1, simulator=endpoint, judge=endpoint, per_persona=1, turns=2)
        user = Scripted("simulator", lambda question: "And then?")
        measure = Dialogues([persona], user, asked, lambda *pair: Outcome(), tmp_path)
        (said,) = measure.take(open_subject(endpoint, "base", device="cpu"), silent)
    assert (said.ended, len(said.answers), said.answers[1]) == ("refused", 2, "")


@pytest.mark.parametrize("down", ["simulator", "judge"])
def test_a_simulator_or_judge_that_is_down_is_told_before_a_model_is_asked(
    tmp_path: Path, knowing: Path, down: str
) -> None:
    folder = run_folder(tmp_path / "run", knowing)
    told: list[str] = []
    with serve(scripted) as server:
        up, gone = (Endpoint(url=url, model="served", retries=0) for url in (server.url, "http://127.0.0.1:9/v1"))
        asked = settings(folder, up, **{down: gone})
        with pytest.raises(EnvironmentLacksError, match=r"127\.0\.0\.1:9"):
            evaluate(folder, asked, progress=lambda label, done, total: told.append(label))
    assert told == []


def test_a_server_that_refuses_a_greeting_is_there(tmp_path: Path, knowing: Path) -> None:
    folder = run_folder(tmp_path / "run", knowing)
    with serve(scripted, faults={1: Fault(status=400)}) as server:
        report = evaluate(folder, settings(folder, Endpoint(url=server.url, model="served"), temperature=0))
    assert report.judging is not None
    assert report.judging.graded == 8


def test_conversations_that_can_not_be_held_are_refused_before_a_model_is_asked(tmp_path: Path, knowing: Path) -> None:
    folder = run_folder(tmp_path / "run", knowing)
    told: list[str] = []
    with pytest.raises(FindingsError, match="E060"):
        evaluate(
            folder,
            settings(folder, "builtin:small", personas=str(tmp_path / "nobody.jsonl")),
            progress=lambda label, done, total: told.append(label),
        )
    assert told == []
