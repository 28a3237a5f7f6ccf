"""A checkpoint counts when it is whole."""

from pathlib import Path

import pytest

from tunesmith.train.checkpoints import (
    CHECKSUMS,
    FOLDER,
    MARKER,
    all_checkpoints,
    is_complete,
    is_intact,
    last_complete,
    mark_complete,
    prune,
    remove_torn,
    step_of,
)
from tunesmith.train.guard.rollback import last_good


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
    assert remove_torn(tmp_path, None) == []


def test_torn_ones_are_removed(tmp_path: Path) -> None:
    """R005 names them."""
    make(tmp_path, 30, complete=False)
    good = make(tmp_path, 9)
    torn = make(tmp_path, 20)
    (torn / "model.safetensors").write_bytes(b"wei")
    assert remove_torn(tmp_path, good) == ["checkpoint-20", "checkpoint-30"]
    assert all_checkpoints(tmp_path) == [good]
    assert remove_torn(tmp_path, good) == []


def test_a_damaged_one_does_not_count(tmp_path: Path) -> None:
    """A byte of the same file has changed: its size is right, and its marker is there."""
    torn, good, damaged = make(tmp_path, 3, complete=False), make(tmp_path, 5), make(tmp_path, 7)
    assert is_intact(damaged)
    (damaged / "model.safetensors").write_bytes(b"weighty")
    assert is_complete(damaged)
    assert not is_intact(damaged)
    assert last_complete(tmp_path) == good
    assert last_good(tmp_path, since=9) == good
    assert remove_torn(tmp_path, good) == [torn.name, damaged.name]
    (good / CHECKSUMS).write_text("[]")
    assert not is_intact(good)
    (good / CHECKSUMS).write_text(" " * 40)
    assert last_complete(tmp_path) is None


def test_a_checkpoint_of_earlier_versions_counts(tmp_path: Path) -> None:
    path = make(tmp_path, 5)
    (path / CHECKSUMS).unlink()
    assert last_complete(tmp_path) == path


def test_what_is_written_is_on_the_disk_before_its_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    path = make(tmp_path, 5, complete=False)
    monkeypatch.setattr("os.fsync", lambda handle: flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    mark_complete(path)
    assert flushed[:2] == ["state.json", "model.safetensors"]
    assert flushed[-1].startswith(f".{MARKER}")


def test_the_readme_is_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    path = make(tmp_path, 5, complete=False)
    (path / "README.md").write_text("An adapter.")
    mark_complete(path)
    (path / "README.md").unlink()
    assert is_intact(path)
    (path / MARKER).write_text('{"README.md": 11, "model.safetensors": 7}')  # as earlier versions wrote it
    assert is_complete(path)


def test_old_ones_go_and_the_best_stays(tmp_path: Path) -> None:
    paths = {step: make(tmp_path, step) for step in (1, 2, 3, 4)}
    torn = make(tmp_path, 5, complete=False)
    prune(tmp_path, None)
    assert all_checkpoints(tmp_path) == [*paths.values(), torn]
    prune(tmp_path, 2, best=paths[1])
    assert all_checkpoints(tmp_path) == [paths[1], paths[3], paths[4], torn]
    prune(tmp_path, 1)
    assert all_checkpoints(tmp_path) == [paths[4], torn]
    prune(tmp_path, 1)
    assert last_complete(tmp_path) == paths[4]


def test_one_that_is_half_deleted_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make(tmp_path, 1), make(tmp_path, 2)

    def dies(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunesmith.train.checkpoints.shutil.rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, 1)
    assert not is_complete(old)
    assert last_complete(tmp_path) == new
