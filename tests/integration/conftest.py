"""Fixtures of the integration tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from tests.support.exports import OTHER_TOKENS, tuned_run
from tests.support.learnt import ROWS, learnt
from tests.support.tiny import LLAMA3_ROPE, OTHER, make_run, make_tokenizer


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama with scaled rope, a stop token that llama.cpp doesn't know by name, and a template that writes BOS."""
    tokenizer = make_tokenizer("llama", template=OTHER, **OTHER_TOKENS)
    return tuned_run(tmp_path_factory.mktemp("llama"), "llama", tokenizer, rope_parameters=LLAMA3_ROPE)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3 with ChatML, embeddings used as output head, and heads larger than hidden size / heads."""
    tokenizer = make_tokenizer("qwen2")
    return tuned_run(tmp_path_factory.mktemp("qwen3"), "qwen3", tokenizer, head_dim=32, tie_word_embeddings=True)


@pytest.fixture(scope="session")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model that knows ROWS by heart, and forgot the rest."""
    return learnt(tmp_path_factory.mktemp("knowing"), ROWS, 40)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Makes a run folder of the test's own."""
    return lambda run: shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def plain(qwen3: Path, copy: Callable[[Path], Path]) -> Path:
    """A run without a chat template, on plain text, whose tokenizer puts BOS before it."""
    run = copy(qwen3)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    bos = "<|im_start|>"
    processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 2)])
    tokenizer.backend_tokenizer.post_processor = processor
    tokenizer.bos_token = bos
    tokenizer.chat_template = None
    (run / "model" / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(run / "model")
    make_run(run, qwen3.parent / "base", [{"text": f"Swap {first} and red."} for first in ("blue", "lamp", "tom")])
    return run
