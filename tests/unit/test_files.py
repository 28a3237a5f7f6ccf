"""Writing: the old file or the new one, never half of one, and refusals that say what to do."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import EnvironmentLacksError
from tunesmith.files import disk_errors, make_folder, sha256, write_atomic

FULL_DISK = """
import resource, sys
from pathlib import Path
from tunesmith.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_atomic(Path(sys.argv[1]), b"x" * 5000)
"""


def test_text_and_bytes_are_written_with_their_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    assert write_atomic(path, "grün\n") == path
    assert path.read_bytes() == "grün\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_permissions_of_any_other_file_of_the_user(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = write_atomic(tmp_path / "file", "x")
        now = os.umask(mask)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert now == mask


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "file", "old")

    def refuse(_name: str, _path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "file", "old")
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert f"EnvironmentLacksError: The disk is full while writing {path}." in ran.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_of_saying_that_the_disk_is_full(number: int) -> None:
    with pytest.raises(EnvironmentLacksError, match="disk is full") as refusal, disk_errors(Path("x")):
        raise OSError(number, os.strerror(number))
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR])
def test_every_way_of_saying_that_a_place_is_not_writable(number: int) -> None:
    with pytest.raises(EnvironmentLacksError, match="Cannot write to x: ") as refusal, disk_errors(Path("x")):
        raise OSError(number, os.strerror(number))
    assert "--output" in refusal.value.fix


def test_other_errors_pass() -> None:
    with pytest.raises(OSError, match="Input/output error"), disk_errors(Path("x")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_or_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(EnvironmentLacksError, match="Cannot write"):
            write_atomic(path, "x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EnvironmentLacksError, match="Cannot write"):
            make_folder(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permission bits don't bind root
    with pytest.raises(EnvironmentLacksError, match="Permission denied"):
        make_folder(tmp_path)


def test_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    path.write_bytes(b"a" * 1_000_000)
    first = sha256(path)
    assert first == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"  # FIPS 180-2, B.3
    path.write_bytes(b"a" * (1 << 20) + b"b")
    assert sha256(path) != first
