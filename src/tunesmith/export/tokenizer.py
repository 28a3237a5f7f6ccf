"""A Transformers tokenizer as GGUF wants it: byte-level BPE whose pre-tokenizer llama.cpp knows by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..rules import FindingsError, finding
from .probes import CHATS

BYTE_LEVEL: Final = "byte-level"
"""Stands in a pre-tokenizer's signature for the regex that GPT-2's ByteLevel step splits by."""
DIGITS: Final = "digits"
"""Stands for the step that makes each digit a word."""

LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT: Final = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((LLAMA3_SPLIT,), True): "llama-bpe",
    ((LLAMA3_SPLIT,), False): "smaug-bpe",
    ((QWEN2_SPLIT,), False): "qwen2",
    ((DIGITS, BYTE_LEVEL), False): "smollm",
    ((BYTE_LEVEL,), False): "gpt-2",
}
"""(what the text is split by, in order; whether whole words are looked up before merging) -> llama.cpp's name.

Mistral's tekken is left out: llama.cpp splits combining marks otherwise than its regex does (seen on Devanagari).
"""

STOP_KEYS: Final = 3
"""GGUF names at most so many stop tokens: eos, eot, eom."""


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF stores of a tokenizer.

    Attributes:
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: Text of each token, as many as the model's embedding has rows.
        types: `gguf.TokenType` of each token.
        merges: Pairs of tokens joined by a space, best first.
        special: GGUF's name of a special token's role (bos, eos, unk, pad) -> id.
        stops: Ids that end generation; the first is eos.
        add_bos: Whether llama.cpp is to put BOS before a prompt.
        add_eos: Whether llama.cpp is to put EOS behind a prompt.
        template: Chat template in Jinja.
    """

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    stops: tuple[int, ...]
    add_bos: bool
    add_eos: bool
    template: str | None


def read_vocabulary(tokenizer: Any, *, size: int, stops: Sequence[int]) -> Vocabulary:
    """Translate a loaded tokenizer for a model whose embedding has `size` rows and which stops at the ids `stops`.

    Raises:
        FindingsError: X007, llama.cpp would not give the same token ids, so nothing should be written.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal("it isn't a fast tokenizer")
    description = json.loads(backend.to_str())
    model = description["model"]
    _refuse_foreign(model, description.get("normalizer"))
    tokens, types = _tokens(model["vocab"], description["added_tokens"], size)
    ends = tuple(dict.fromkeys(stops))
    if not 1 <= len(ends) <= STOP_KEYS:
        raise _refusal(f"it has {len(ends)} stop tokens, and GGUF can name 1 to {STOP_KEYS}")
    add_bos, add_eos = _affixes(tokenizer)
    return Vocabulary(
        pre=name_of(description.get("pre_tokenizer"), bool(model.get("ignore_merges"))),
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        special=_special(tokenizer, ends[0]),
        stops=ends,
        add_bos=add_bos,
        add_eos=add_eos,
        template=tokenizer.get_chat_template() if tokenizer.chat_template else None,
    )


def write_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Write the tokenizer's keys."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for role, token in vocabulary.special.items():
        getattr(writer, f"add_{role}_token_id")(token)
    for role, token in zip(("eot", "eom"), vocabulary.stops[1:], strict=False):
        getattr(writer, f"add_{role}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def name_of(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> str:
    """llama.cpp's name for a pre-tokenizer, given as in tokenizer.json, recognised by what it does.

    Raises:
        FindingsError: X007, llama.cpp has none that splits alike.
    """
    signature = tuple(_steps(pre_tokenizer))
    name = PRE_TOKENIZERS.get((signature, ignore_merges))
    if name is None:
        merges = "ignoring" if ignore_merges else "honouring"
        raise _refusal(f"no known pre-tokenizer splits by {' then '.join(signature) or 'nothing'}, {merges} merges")
    return name


def _steps(step: dict[str, Any] | None) -> Iterator[str]:
    match step:
        case None:
            return
        case {"type": "Sequence", "pretokenizers": steps}:
            for inner in steps:
                yield from _steps(inner)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            yield pattern
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}:
            yield pattern
        case {"type": "Digits", "individual_digits": True}:
            yield DIGITS
        case {"type": "ByteLevel", "add_prefix_space": False}:
            if step.get("use_regex", True):
                yield BYTE_LEVEL
        case _:
            raise _refusal(f"its pre-tokenizer has the step {json.dumps(step)[:120]}")


def _refuse_foreign(model: dict[str, Any], normalizer: dict[str, Any] | None) -> None:
    if model["type"] != "BPE":
        raise _refusal(f"it is a {model['type']} tokenizer, not byte-level BPE")
    if model.get("byte_fallback"):
        raise _refusal("it is a SentencePiece tokenizer, not byte-level BPE")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise _refusal(f"its BPE model uses {option}")
    if not _is_nfc_or_nothing(normalizer):
        raise _refusal(f"its normalizer {normalizer and normalizer['type']} changes the text")


def _is_nfc_or_nothing(normalizer: dict[str, Any] | None) -> bool:
    """llama.cpp normalises nothing; NFC is let through, as nearly all text is in that form already."""
    match normalizer:
        case None | {"type": "NFC"}:
            return True
        case {"type": "Sequence", "normalizers": steps}:
            return all(map(_is_nfc_or_nothing, steps))
    return False


def _tokens(vocabulary: dict[str, int], added: list[dict[str, Any]], size: int) -> tuple[list[str], list[int]]:
    """Text and type of each id below `size`; ids that the tokenizer doesn't use become unused padding."""
    from gguf import TokenType
    from tokenizers.pre_tokenizers import ByteLevel

    if missing := set(ByteLevel.alphabet()) - vocabulary.keys():
        raise _refusal(f"its vocabulary lacks {len(missing)} of the 256 bytes")
    highest = max([*vocabulary.values(), *(token["id"] for token in added)])
    if highest >= size:
        raise _refusal(f"its highest token id is {highest}, and the model has {size} embeddings")
    tokens = [f"[PAD{id_}]" for id_ in range(size)]
    types = [int(TokenType.UNUSED)] * size
    for text, id_ in vocabulary.items():
        tokens[id_], types[id_] = text, int(TokenType.NORMAL)
    for token in added:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise _refusal(f"its token {token['content']} swallows spaces or matches whole words only")
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]], types[token["id"]] = token["content"], int(kind)
    return tokens, types


def _special(tokenizer: Any, eos: int) -> dict[str, int]:
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": eos,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    return {role: id_ for role, id_ in ids.items() if id_ is not None}


def _affixes(tokenizer: Any) -> tuple[bool, bool]:
    """Whether BOS stands before and EOS behind a prompt.

    For a chat model the chat template says so, as prompts are trained and served through it; else the tokenizer does.
    """
    if tokenizer.chat_template:
        bos = tokenizer.bos_token
        return bool(bos and _opening(tokenizer).startswith(bos)), False
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    bos_ids, eos_ids = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for add_bos in (False, True):
        for add_eos in (False, True):
            if full == bos_ids * add_bos + plain + eos_ids * add_eos:
                return add_bos, add_eos
    raise _refusal("it adds special tokens other than BOS before and EOS behind a text")


def _opening(tokenizer: Any) -> str:
    """How a chat begins: the first probe chat that the template accepts, rendered."""
    from jinja2 import TemplateError

    for messages in CHATS.values():
        with contextlib.suppress(TemplateError):
            return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return ""


def _refusal(reason: str) -> FindingsError:
    return FindingsError([finding("X007", "export", reason=reason)])
