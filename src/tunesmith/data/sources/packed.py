"""A file's bytes as UTF-8: unpacked where it is compressed, recoded where a byte order mark says UTF-16 or UTF-32."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from ...errors import EnvironmentLacksError, UsageError
from ...rules import FindingsError, finding

_BLOCK: Final = 1 << 16
_MOST_READ: Final = 1 << 20  # bytes that are unpacked at once
_ZSTD_BLOCK: Final = 1 << 11  # packed bytes; each 4 of them can stand for 128 KiB
_PACKINGS: Final = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_MARKS: Final = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "",
}
_DAMAGE: Final = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)
MOST_RATIO: Final = 250
"""Text unpacks to 3 to 20 times its size; a file made to fill the disk to 1,000 times and more."""
_HARMLESS: Final = 64 << 20  # bytes; below it any ratio will do


def open_bytes(path: Path, name: str) -> IO[bytes]:
    """The file's bytes, unpacked.

    Args:
        path: The file.
        name: How findings name it.

    Raises:
        UsageError: there is no such file.
        EnvironmentLacksError: it may not be read.
        FindingsError: D003 an archive of several files; while reading: D001 damaged, D022 it swells suspiciously.
    """
    packing = packing_of(path)
    if packing is None:
        return _open(path)
    file = _Unpacked(path, name, packing)
    return io.BufferedReader(file, _BLOCK)


def packing_of(path: Path) -> str | None:
    """How the file is compressed, by its first bytes: gzip, zip, zstd, bzip2, xz; None when it isn't."""
    with _open(path) as file:
        start = file.read(6)
    return next((packing for magic, packing in _PACKINGS.items() if start.startswith(magic)), None)


def open_utf8(path: Path, name: str) -> IO[bytes]:
    """The file's text as UTF-8 bytes without a byte order mark, whatever it is packed and coded in.

    Raises:
        As open_bytes; and FindingsError: D003, while reading, what isn't text in the encoding of the mark.
    """
    file = open_bytes(path, name)
    start = file.read(4)
    mark = next((mark for mark in _MARKS if start.startswith(mark)), b"")
    rest = _Joined(start[len(mark) :], file)
    encoding = _MARKS.get(mark, "")
    return io.BufferedReader(_Recoded(rest, name, encoding) if encoding else rest, _BLOCK)


def unreadable(name: str, error: str, how: str = "") -> NoReturn:
    """Raise D003: the file isn't readable as text."""
    raise FindingsError([finding("D003", name, error=error, how=how)])


def recode(encoding: str) -> str:
    """How to make UTF-8 of a file, for the end of D003's fix."""
    return f": if it is {encoding}, `iconv -f {encoding} -t UTF-8 IN > OUT` does it"


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UsageError(
            f"{path} isn't there.",
            why="A path in a recipe counts from the recipe's folder, any other from the folder the command runs in.",
            fix="Check its spelling, or give the whole path.",
        ) from None
    except OSError as error:
        raise EnvironmentLacksError(
            f"{path} can't be read: {error.strerror}.",
            why="The operating system refuses to give its content.",
            fix="Check its permissions and its disk.",
        ) from error


def _unzipped(path: Path, name: str) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and member.file_size
    ]
    if len(members) != 1:
        unreadable(name, f"This zip archive holds {len(members)} files, not one.", "; unpack it into a folder first")
    _refuse_bomb(name, "zip", path.stat().st_size, members[0].file_size)
    return archive.open(members[0])


def _refuse_bomb(name: str, packing: str, size: int, unpacked: int) -> None:
    if unpacked > max(_HARMLESS, MOST_RATIO * size):
        raise FindingsError([finding("D022", name, packing=packing, size=f"{size:,}", ratio=f"{MOST_RATIO:,}")])


class _Zstd:
    """Reads zstd frames; zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._left = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._left:
            packed = self._frame.unused_data if self._frame.eof else b""
            packed = packed or self._file.read(_ZSTD_BLOCK)
            if not packed:
                if not self._frame.eof:
                    raise EOFError("the last frame has no end")
                return b""
            if self._frame.eof:
                self._frame = self._new()
            self._left = self._frame.decompress(packed)
        block, self._left = self._left[:size], self._left[size:]
        return block


_OPENERS: Final[dict[str, Callable[[Path, str], Any]]] = {
    "gzip": lambda path, _: gzip.GzipFile(path),
    "bzip2": lambda path, _: bz2.BZ2File(path),
    "xz": lambda path, _: lzma.LZMAFile(path),  # noqa: SIM115 - _Unpacked holds it
    "zip": _unzipped,
    "zstd": lambda path, _: _Zstd(_open(path)),
}


class _Unpacked(io.RawIOBase):
    """What a compressed file unpacks to; stops a file that swells beyond measure."""

    def __init__(self, path: Path, name: str, packing: str) -> None:
        self._name, self._packing = name, packing
        self._size = path.stat().st_size
        self._given = 0
        self._file = self._guarded(lambda: _OPENERS[packing](path, name))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._guarded(lambda: self._file.read(len(buffer)))
        buffer[: len(block)] = block
        self._given += len(block)
        _refuse_bomb(self._name, self._packing, self._size, self._given)
        return len(block)

    def _guarded(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except _damage() as error:
            problem = f"The {self._packing} file is damaged or cut off: {str(error).rstrip('.') or 'no end'}."
            raise FindingsError([finding("D001", self._name, error=problem, place="the file")]) from None


def _damage() -> tuple[type[Exception], ...]:
    """What the unpackers raise at a broken file."""
    import zstandard

    return (*_DAMAGE, zstandard.ZstdError)


class _Joined(io.RawIOBase):
    """Bytes that were read already, and the rest of their file."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # A buffer may be as large as a whole document; what swells must be seen before it fills it.
        block = self._start[: len(buffer)] or self._rest.read(min(len(buffer), _MOST_READ))
        self._start = self._start[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._rest.close()
        super().close()


class _Recoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, file: io.RawIOBase, name: str, encoding: str) -> None:
        self._file, self._name, self._encoding = file, name, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._left = b""
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            block = self._file.read(_BLOCK) or b""
            try:
                self._left = self._decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as error:
                line = self._lines + error.object[: error.start].decode(self._encoding, "ignore").count("\n")
                unreadable(self._name, f"Line {line} isn't {self._encoding.upper()} ({error.reason}).")
            self._lines += self._left.count(b"\n")
            if not block:
                break
        block, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()
