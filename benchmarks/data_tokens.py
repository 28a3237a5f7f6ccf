"""Tokenize, template, mask and pack 20,000 chats: tunesmith's fast path against TRL's own preparation.

python -m benchmarks.data_tokens [ROUNDS] [CHATS]

One core, one process (`dataset_num_proc` left at None), one thread in the tokenizers library. The chats are generated:
several turns, about 300 tokens each under a byte-level BPE of 32,000 tokens that is trained here on a part of them,
with Qwen2.5's chat template as TRL ships it. TRL gets its rows as a dataset in memory, whose making isn't counted,
without progress bars; ours starts from the rows as they come out of a JSONL file, and its building of the encoder and
its self-check against TRL are counted. Before anything is timed, both datasets are asserted to be equal.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1"}

from tunesmith.data.fast import prepare_fast
from tunesmith.data.trl_preparation import as_dataset, prepare_dataset

from .measure import interleave, report

ROWS = 20_000
TRAINED_ON = 6_000
VOCABULARY = 32_000
MAX_LENGTH = 2048
ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r", "s", "st", "t"]
ONSETS += ["th", "tr", "v", "w", "z", ""]
VOWELS, CODAS = ["a", "e", "i", "o", "u", "ai", "ea", "ou", "io"], ["", "n", "r", "s", "l", "t", "nd", "st"]
FOREIGN = ["naïve", "café", "Straße", "東京", "привет", "🙂", "für", "“quote”", "señor", "x²"]
ENDS = [*[" "] * 14, ", ", ". ", ".\n", ": ", "; ", " - "]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class Chats:
    """Generated conversations: words by Zipf's law, numbers, code, other scripts, punctuation."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        syllables = ["".join(parts) for parts in itertools.product(ONSETS, VOWELS, CODAS)]
        self.words = ["".join(self.random.choices(syllables, k=1 + number % 4)) for number in range(30_000)]
        self.weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(self.words))))

    def text(self, words: int) -> str:
        """That many words."""
        chosen = self.random.choices(self.words, cum_weights=self.weights, k=words)
        return "".join(self._dressed(word) + self.random.choice(ENDS) for word in chosen).strip().capitalize() + "."

    def _dressed(self, word: str) -> str:
        kind = self.random.random()
        if kind < 0.03:
            return str(self.random.randint(0, 99_999))
        if kind < 0.05:
            return self.random.choice(FOREIGN)
        if kind < 0.06:
            return f"`{word}_{self.random.choice(self.words)}(x, y)`"
        return word.capitalize() if kind < 0.1 else word

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        while True:
            turns = self.random.choice([2, 2, 4, 4, 6])
            system = [{"role": "system", "content": "You are a helpful assistant. " + self.text(8)}]
            yield (system if self.random.random() < 0.3 else []) + [
                {
                    "role": "assistant" if turn % 2 else "user",
                    "content": self.text(max(3, int(self.random.lognormvariate(4.0 if turn % 2 else 3.3, 0.6)))),
                }
                for turn in range(turns)
            ]


def make_tokenizer(chats: list[list[dict[str, str]]]) -> Any:
    """A byte-level BPE as Qwen's families have it, trained on the chats."""
    import trl
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator((message["content"] for chat in chats for message in chat), trainer)
    template = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template.read_text(encoding="utf-8"),
    )


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def contest(
    name: str, layout: Any, rows: list[dict[str, Any]], tokenizer: Any, training: dict[str, Any], rounds: int
) -> None:
    """Assert that both give the same, then time both."""
    training = {"max_length": MAX_LENGTH, **training}
    dataset = as_dataset(rows)
    ours = prepare_fast(rows, layout, tokenizer, training)
    theirs = prepare_dataset(dataset, tokenizer, training)
    assert ours.dataset is not None, ours.reason
    for column in ours.dataset.column_names:
        assert ours.dataset.features[column] == theirs.features[column]
        assert ours.dataset[column][:] == theirs[column][:]
    assert ours.lengths is not None
    setting = (
        f"{name}: {len(rows):,} chats, {int(ours.lengths.sum()):,} tokens, max_length {MAX_LENGTH}, one core, equal "
        f"outputs asserted ({', '.join(ours.dataset.column_names)}); encoded by {ours.encoder}."
    )
    seconds = interleave(
        {
            "tunesmith": functools.partial(timed, lambda: prepare_fast(rows, layout, tokenizer, training)),
            "trl": functools.partial(timed, lambda: prepare_dataset(dataset, tokenizer, training)),
        },
        rounds,
    )
    report(f"data_tokens_{name.replace(' ', '_').replace('-', '_')}", "tunesmith", seconds, setting, aside="")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    count = int(sys.argv[2]) if len(sys.argv) > 2 else ROWS
    chats = list(itertools.islice(Chats(seed=42), count))
    tokenizer = make_tokenizer(chats[:TRAINED_ON])
    messages = [{"messages": chat} for chat in chats]
    answered = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]
    contest("prompt-completion", "prompt-completion", answered, tokenizer, {}, rounds)
    contest("assistant-only", "messages", messages, tokenizer, {"assistant_only_loss": True}, rounds)
    contest("packing bfd", "messages", messages, tokenizer, {"packing": True}, rounds)


if __name__ == "__main__":
    main()
