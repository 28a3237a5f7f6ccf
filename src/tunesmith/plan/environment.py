"""Versions that are known to be bad, and those that tunesmith wasn't made for."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..records import Finding
from ..rules import finding

_TABLE = Path(__file__).parent / "tables" / "bad_versions.yaml"


@functools.cache
def bad_versions() -> list[dict[str, Any]]:
    """The table: package, from (included), before (excluded), problem, remedy and source."""
    rows: list[dict[str, Any]] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return rows


def check_versions(versions: Mapping[str, str]) -> Iterator[Finding]:
    """P016 for each version that is known to be bad, P017 for each outside of what tunesmith asks for.

    Args:
        versions: Package -> version: those installed here, or those of a job's image.
    """
    from packaging.version import InvalidVersion, Version

    for row in bad_versions():
        try:
            version = Version(versions.get(row["package"]) or _installed(row["package"]))
        except InvalidVersion:
            continue
        if Version(row["from"]) <= version < Version(row["before"]):
            details = {key: row[key] for key in ("package", "problem", "remedy")}
            yield finding("P016", "versions", version=str(version), **details)
    yield from _outside(versions)


def _outside(versions: Mapping[str, str]) -> Iterator[Finding]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    given = {canonicalize_name(package): version for package, version in versions.items()}
    for text in importlib.metadata.requires("tunesmith") or []:
        wanted = Requirement(text)
        version = given.get(canonicalize_name(wanted.name))
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if version and applies and not wanted.specifier.contains(version, prereleases=True):
            yield finding("P017", "versions", package=wanted.name, version=version, wanted=str(wanted.specifier))


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
