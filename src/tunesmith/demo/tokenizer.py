"""The small model's tokenizer: byte-level BPE whose words never carry a leading space.

"Lisbon" must be the same tokens after a space, a quotation mark or nothing: copying a word from the
message into the ticket is then copying tokens, which a model of this size can learn. But GGUF knows only
a fixed list of pre-tokenizers, and none splits like that. So the merges are learned under a pre-tokenizer
that keeps letters apart from everything else, and the tokenizer is then shipped with Qwen2's: no merge
joins a space to a letter, so the coarser split changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD: Final = "<|pad|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"

VOCABULARY: Final = 896
CONTEXT: Final = 2048
"""Tokens the model's position embeddings are declared for."""

QWEN2_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ISOLATING_SPLIT: Final = r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"

PURE: Final = re.compile(r"[A-Za-z]+|[!-/:-@\[-`{-~ĠĊ]+")
"""Letters alone, or signs, spaces ("Ġ") and line breaks ("Ċ") alone: what a token may be made of."""


def train_tokenizer(texts: Iterable[str], template: str) -> PreTrainedTokenizerFast:
    """Learn the merges from the texts (all ASCII) and give the tokenizer as it is shipped."""
    tokenizer = Tokenizer(models.BPE())
    qwen2 = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False)
    isolating = pre_tokenizers.Split(Regex(ISOLATING_SPLIT), behavior="isolated", invert=False)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([qwen2, isolating, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([qwen2, to_bytes])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


def impure_merges(tokenizer_json: Path) -> list[str]:
    """Tokens that join letters with anything else, such as a space; the shipped tokenizer must have none."""
    merges = json.loads(tokenizer_json.read_text(encoding="utf-8"))["model"]["merges"]
    tokens = ("".join(merge) for merge in merges)
    return [token for token in tokens if not PURE.fullmatch(token)]
