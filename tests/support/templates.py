"""The chat templates that TRL ships, on the built-in model's tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trl

from tests.support.runs import SMALL
from tunesmith.models.load import load_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(file.stem for file in FOLDER.glob("*.jinja"))
_MARKER = re.compile(r"<[|\uff5c][^<>{}\s]+[|\uff5c]>|</?[a-z_]+(?:_of_[a-z]+)?>|<[a-z]+\|>|<\|[a-z_]+>|\[/?[A-Z_]+\]")
_ENDS = (
    "<|im_end|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|user|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<\uff5cend▁of▁sentence\uff5c>",
    "<|eot|>",
)


def template_text(name: str) -> str:
    """The text of a template that TRL ships."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_with(template: str) -> Any:
    """The built-in tokenizer under another template, with the template's markers as special tokens of it."""
    tokenizer = load_tokenizer(SMALL)
    markers = sorted(set(_MARKER.findall(template)))
    tokenizer.add_special_tokens({"bos_token": "<|begin|>", "additional_special_tokens": markers})
    tokenizer.chat_template = template
    ends = [end for end in _ENDS if end in markers]
    if ends:
        tokenizer.eos_token = ends[0]
    return tokenizer


def save_tokenizer(template: str, folder: Path) -> Path:
    """As `tokenizer_with`, saved as a model's folder holds it."""
    tokenizer_with(template).save_pretrained(folder)
    return folder
