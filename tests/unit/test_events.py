"""The event log: whatever a killed process leaves in it, no whole event is lost."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import EnvironmentLacksError
from tunesmith.records import Event
from tunesmith.track.events import FILENAME, EventLog, curve, follow_events, read_events

KINDS = ("log", "eval", "save", "start")
EVENTS = st.lists(
    st.builds(
        Event,
        time=st.floats(0, 2e9),
        kind=st.sampled_from(KINDS),
        step=st.integers(0, 9),
        data=st.dictionaries(st.text(max_size=5), st.floats() | st.text(max_size=9), max_size=3),
    ),
    max_size=8,
)
GARBAGE = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")) | st.sampled_from(
    [b"{", b"3", b"null", b""]
)


def log(kind: str, step: int, **data: float) -> Event:
    return Event.model_validate({"time": 1.0, "kind": kind, "step": step, "data": data})


def line(event: Event) -> bytes:
    return event.model_dump_json().encode() + b"\n"


def written(events: list[Event]) -> list[str]:
    return [event.model_dump_json() for event in events]


def test_events_come_back(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    before = time.time()
    made = [events.write("start", steps=3), events.write("log", 1, loss=2.5, note="a\nb\u2028c")]
    assert read_events(tmp_path) == made  # flushed at once, before it is closed
    events.close()
    assert before <= made[0].time <= time.time()
    assert (made[1].kind, made[1].step, made[1].data) == ("log", 1, {"loss": 2.5, "note": "a\nb\u2028c"})
    assert (tmp_path / FILENAME).read_bytes().count(b"\n") == 2


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    assert list(follow_events(tmp_path, lambda: False)) == []


@given(EVENTS, st.data())
def test_garbage_between_whole_lines_loses_none(events: list[Event], data: st.DataObject) -> None:
    content = b"".join(data.draw(GARBAGE) + b"\n" + line(event) for event in events)
    folder = _folder(content + data.draw(GARBAGE))
    assert written(read_events(folder)) == written(events)
    assert written(list(follow_events(folder, lambda: False))) == written(events)


@given(EVENTS, EVENTS, st.integers(0, 400))
def test_a_log_cut_anywhere_is_continued(events: list[Event], more: list[Event], cut: int) -> None:
    content = b"".join(line(event) for event in events)
    kept = content[: len(content) - cut] if cut < len(content) else b""
    whole = [
        event for index, event in enumerate(events) if len(b"".join(map(line, events[: index + 1]))) - 1 <= len(kept)
    ]
    folder = _folder(kept)
    again = EventLog(folder)
    new = [again.write(event.kind, event.step) for event in more]
    again.close()
    assert written(read_events(folder)) == written([*whole, *new])
    assert written(list(follow_events(folder, lambda: False))) == written([*whole, *new])


def _folder(content: bytes) -> Path:
    folder = Path("log")  # each test works in a folder of its own
    folder.mkdir(exist_ok=True)
    (folder / FILENAME).write_bytes(content)
    return folder


def test_following_a_log_that_is_written_in_pieces(tmp_path: Path) -> None:
    path, done = tmp_path / FILENAME, threading.Event()
    events = [log("log", step, loss=1 / (step + 1)) for step in range(20)]
    content = b"".join(line(event) for event in events)

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for start in range(0, len(content), 37):
                file.write(content[start : start + 37])
                time.sleep(0.001)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert list(follow_events(tmp_path, lambda: not done.is_set(), pause=0.002)) == events
    writer.join()


def test_following_from_a_place_in_the_log(tmp_path: Path) -> None:
    events = [log("log", step) for step in range(3)]
    (tmp_path / FILENAME).write_bytes(b"".join(line(event) for event in events))
    start = len(line(events[0]))
    assert list(follow_events(tmp_path, lambda: False, start=start)) == events[1:]


def test_the_last_events_are_read_although_the_writer_has_ended(tmp_path: Path) -> None:
    """The writer may write and end between two looks."""
    path = tmp_path / FILENAME

    def ended() -> bool:
        path.write_bytes(line(log("end", 3)))
        return False

    assert [event.kind for event in follow_events(tmp_path, ended)] == ["end"]


def test_the_curve_of_one_run() -> None:
    events = [
        log("start", 0),
        log("log", 2, loss=1.0),
        log("log", 1, loss=2.0),
        log("save", 2),
        log("eval", 2),
        log("end", 2),
    ]
    assert [(event.step, event.kind) for event in curve(events)] == [(1, "log"), (2, "eval"), (2, "log")]


def test_what_a_resume_did_again_replaces_what_was_done() -> None:
    first = [log("start", 0), *(log("log", step, loss=float(step)) for step in range(1, 6)), log("eval", 5)]
    second = [log("start", 2), log("log", 3, loss=30.0), log("log", 4, loss=40.0)]
    found = curve([*first, *second])
    assert [event.data["loss"] for event in found] == [1.0, 2.0, 30.0, 40.0]
    assert curve([*first, log("start", 0)]) == []
    assert curve([]) == []


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacksError, match="Cannot write"):
        EventLog(tmp_path / "file")


def test_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tunesmith.track.events import EventLog;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); log = EventLog(Path(sys.argv[1]));"
        "[log.write('log', step) for step in range(20)]"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "EnvironmentLacksError: The disk is full" in ran.stderr
    kept = [event.step for event in read_events(tmp_path)]
    assert kept == list(range(len(kept)))
    assert len(kept) >= 3
