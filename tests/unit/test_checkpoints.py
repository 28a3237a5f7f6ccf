"""A checkpoint counts when it is whole."""

from pathlib import Path

import pytest

from tunesmith.train.checkpoints import (
    FOLDER,
    MARKER,
    all_checkpoints,
    is_complete,
    last_complete,
    mark_complete,
    remove_torn,
    step_of,
)


def make(run: Path, step: int | str, *, complete: bool = True) -> Path:
    """A checkpoint as Transformers lays one out."""
    path = run / FOLDER / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "deep" / "state.json").write_bytes(b"{}")
    if complete:
        mark_complete(path)
    return path


def test_the_marker_makes_it_complete(tmp_path: Path) -> None:
    path = make(tmp_path, 5, complete=False)
    assert not is_complete(path)
    mark_complete(path)
    assert is_complete(path)
    mark_complete(path)  # the marker doesn't list itself
    assert is_complete(path)
    assert MARKER not in (path / MARKER).read_text()


def test_a_file_that_is_shorter_longer_or_gone(tmp_path: Path) -> None:
    for name in ("model.safetensors", "deep/state.json"):
        path = make(tmp_path / name, 1)
        content = (path / name).read_bytes()
        for other in (content[:-1], content + b"x", b""):
            (path / name).write_bytes(other)
            assert not is_complete(path)
        (path / name).unlink()
        assert not is_complete(path)
        (path / name).mkdir()
        assert not is_complete(path)
        (path / name).rmdir()
        (path / name).write_bytes(content)
        assert is_complete(path)


def test_a_file_more_does_no_harm(tmp_path: Path) -> None:
    path = make(tmp_path, 1)
    (path / "more").write_text("x")
    assert is_complete(path)


@pytest.mark.parametrize(
    "marker", [b"", b"{", b"{}", b"[]", b"[1]", b"3", b"null", b"\xff", b'{"model.safetensors": "7"}']
)
def test_a_damaged_marker(tmp_path: Path, marker: bytes) -> None:
    path = make(tmp_path, 1)
    (path / MARKER).write_bytes(marker)
    assert not is_complete(path)


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "checkpoint-3"
    path.mkdir(parents=True)
    mark_complete(path)
    assert not is_complete(path)


def test_the_order_is_that_of_the_steps(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        make(tmp_path, step)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [3, 20, 100]
    assert last_complete(tmp_path) == tmp_path / FOLDER / "checkpoint-100"


def test_the_last_complete_one_counts(tmp_path: Path) -> None:
    assert last_complete(tmp_path) is None
    make(tmp_path, 10, complete=False)
    assert last_complete(tmp_path) is None
    good = make(tmp_path, 5)
    assert last_complete(tmp_path) == good


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, "best")
    make(tmp_path, "²")  # a digit that is no number
    (tmp_path / FOLDER / "checkpoint-7").write_text("a file")
    assert all_checkpoints(tmp_path) == []
    assert remove_torn(tmp_path) == []


def test_torn_ones_are_removed(tmp_path: Path) -> None:
    """R005 names them."""
    make(tmp_path, 30, complete=False)
    good = make(tmp_path, 9)
    torn = make(tmp_path, 20)
    (torn / "model.safetensors").write_bytes(b"wei")
    assert remove_torn(tmp_path) == ["checkpoint-20", "checkpoint-30"]
    assert all_checkpoints(tmp_path) == [good]
    assert remove_torn(tmp_path) == []
