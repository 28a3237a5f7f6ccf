"""docs/memory.md says what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_tables", DOCS / "memory_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date(tables: ModuleType) -> None:
    page = (DOCS / "memory.md").read_text(encoding="utf-8")
    assert tables.fill(page) == page, "run `python docs/memory_tables.py`"
    assert all(f"<!-- made: {name} -->" in page for name in tables.TABLES)


def test_the_guides_claims_are_refuted_by_the_tables(tables: ModuleType) -> None:
    lora = tables.WAYS["LoRA, base in bf16"]
    assert tables.device_need("meta-llama/Llama-3.1-8B", 2048, **lora) > 16
    assert tables.device_need("google/gemma-3-12b-it", 8192, **tables.WAYS["QLoRA"]) < 24
    assert tables.device_need("meta-llama/Llama-3.1-8B", 2048, **tables.WAYS["full, weights in bf16"]) < 80
