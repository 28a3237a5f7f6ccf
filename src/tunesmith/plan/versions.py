"""Versions of what a run stands on."""

from __future__ import annotations

import importlib.metadata
import platform

_PACKAGES = (
    "tunesmith",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "huggingface_hub",
    "trackio",
    "gguf",
    "xllamacpp",
)


def installed_versions() -> dict[str, str]:
    """Version of Python and of each installed package that a run depends on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
