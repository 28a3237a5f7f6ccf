"""Tiny models that have learned a little, so that a fault in an export shows; made in seconds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from tests.support.runs import make_plan, small_facts
from tunesmith.export.probes import NASTY
from tunesmith.export.tokenizer import LLAMA3_SPLIT, QWEN2_SPLIT
from tunesmith.records import Plan

WORDS = ["red", "blue", "green", "lamp", "chair", "oslo", "rome", "lyon", "maria", "tom", "it's", "don't"]
WORDS += ["12", "345", "2026", "a-b", "c/d", "(x)", "y=z"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER = (
    "{{ bos_token }}{% for m in messages %}[[{{ m['role'] }}]] {{ m['content'] | trim }}<|fin|>{% endfor %}"
    "{% if add_generation_prompt %}[[assistant]] {% endif %}"
)
"""A template whose EOS llama.cpp doesn't know by its name, and which writes BOS itself."""

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def split_by(pattern: str) -> Any:
    """The pre-tokenizer of a model that splits by a regex of its own."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


PRE_TOKENIZERS: dict[str, Any] = {
    "llama": split_by(LLAMA3_SPLIT),
    "qwen2": split_by(QWEN2_SPLIT),
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def make_tokenizer(
    split: str, *, template: str | None = CHATML, ignore_merges: bool = False, **special: Any
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 700 tokens, whose merges would differ under another split."""
    random_ = random.Random(0)
    corpus = [*NASTY * 3, *(" ".join(random_.choices(WORDS, k=8)) for _ in range(300))]
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[split]
    tokenizer.decoder = decoders.ByteLevel()
    tokens = {
        "pad_token": "<|pad|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
    } | special
    names = [name for value in tokens.values() for name in ([value] if isinstance(value, str) else value)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    fast.chat_template = template
    return fast


def rows(count: int, seed: int, ending: str = "") -> list[dict[str, Any]]:
    """Chats in which the assistant swaps two words; `ending` sets one task apart from another."""
    random_ = random.Random(seed)
    found = []
    for _ in range(count):
        first, second = random_.sample(WORDS, 2)
        found.append(
            {
                "prompt": [{"role": "user", "content": f"Swap {first} and {second}."}],
                "completion": [{"role": "assistant", "content": f"{second} {first}{ending}"}],
            }
        )
    return found


def learn(model: Any, tokenizer: Any, data: Sequence[dict[str, Any]], *, steps: int, rate: float) -> None:
    """Train on the whole text of the rows, for seconds."""
    texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in data]
    encoded = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    random_ = random.Random(0)
    model.train()
    for _ in range(steps):
        batch = random_.choices(encoded, k=16)
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=0)
        labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def make_base(folder: Path, model_type: str, tokenizer: Any, *, steps: int = 100, **changes: Any) -> Path:
    """Train a tiny model of a Transformers `model_type` and save it with its tokenizer."""
    torch.manual_seed(0)
    special = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, vocab_size=704, **(SIZES | special | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if steps:
        learn(model, tokenizer, rows(400, 1), steps=steps, rate=5e-3)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    model.to(config.dtype or torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(base: Path, tokenizer: Any, folder: Path, *, steps: int = 40) -> Path:
    """Train a LoRA adapter on a task of its own, and save it as a run's result."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    learn(model, tokenizer, rows(400, 2, ending="!"), steps=steps, rate=1e-2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_run(folder: Path, base: Path, data: list[dict[str, Any]] | None = None, **facts: Any) -> Plan:
    """Write plan and held-out rows of a run on `base`; its result goes to `folder / "model"`."""
    model = small_facts(base).model_copy(update=facts)
    return make_plan(folder, data or rows(40, 3, ending="!"), base=base, model=model)
