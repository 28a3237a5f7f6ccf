"""Token lengths without torch: the model's tokenizer.json, and its template rendered by Transformers' own renderer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ..errors import UsageError
from .facts import stop_ids
from .load import load_tokenizer, read_template
from .marked import marked_template
from .source import read_json

_BATCH = 1024
_REASONING = ("reasoning_content", "thinking", "reasoning")  # Transformers takes each for the others
_KEYS = {"tools": ("tools",), "tool_calls": ("tool_calls",), "reasoning": _REASONING}
_TEXTS = ("content", *_REASONING)
_ANSWERS = ("completion", "chosen", "rejected")


class LightTokenizer:
    """Counts tokens as the trainer will, in a fraction of AutoTokenizer's start-up time.

    Attributes:
        template: The chat template's text, or None.
        eos: The EOS token, or None.
        pad: The token that fills up short rows, or None.
        error: Relative error of its counts: none.
        has_generation_marks: Whether the template, or TRL's marked copy of it, marks what the assistant wrote.
    """

    error = 0.0

    def __init__(
        self, folder: Path, chat_template: str | None = None, *, tokens: Sequence[str] = (), model: Path | None = None
    ) -> None:
        """Read the tokenizer in `folder`.

        Args:
            folder: With its files.
            chat_template: Path of a Jinja file that replaces its template.
            tokens: Those that it lacks are added.
            model: Folder with the model's generation settings, where it is another one.

        Raises:
            UsageError: the folder has no tokenizer that can be read.
        """
        self._tokenizer = _backend(folder)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
        config = folder / "tokenizer_config.json"
        settings = read_json(config) if config.exists() else {}
        self._special = {
            name: _content(settings[name])
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if settings.get(name)
        }
        self.eos = self._special.get("eos_token")
        self.pad = self._special.get("pad_token")
        self.template = read_template(chat_template) if chat_template else _own_template(folder, settings)
        self._marked = marked_template(self.template) if self.template else None
        self.has_generation_marks = self._marked is not None
        self._stop_ids = stop_ids(model or folder)

    def render(
        self, messages: list[dict[str, Any]], *, prompt: bool = False, tools: Any = None, marked: bool = False
    ) -> str:
        """The text of a conversation; with `prompt`, ended by the header of the assistant's turn.

        `marked` renders as assistant-only loss does: by TRL's marked copy of the template where it has none itself.

        Raises:
            jinja2.TemplateError: the template refuses the conversation.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered, _ = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=self._marked or self.template if marked else self.template,
            add_generation_prompt=prompt,
            **self._special,
        )
        return str(rendered[0])

    def encode_rows(self, rows: Sequence[dict[str, Any]], layout: str) -> tuple[list[int] | None, list[int]]:
        """Token counts of `rows`: of their prompts (None where rows have none), and of whole rows.

        Of a preference pair's two sides the longer one counts; of a prompt alone, the prompt is the whole.

        Raises:
            jinja2.TemplateError: the template refuses a row.
        """
        if layout == "text":
            return None, self._count([self._ended(row["text"]) for row in rows], special=True)
        if layout == "messages":
            texts = [self.render(row["messages"], tools=_tools(row), marked=True) for row in rows]
            return None, self._count(texts, special=False)
        prompts = self._prompts(rows)
        if layout == "prompt-only":
            return None, prompts
        names = ("chosen", "rejected") if layout == "preference" else ("completion",)
        sides = [self._with_answers(rows, name) for name in names]
        return prompts, [max(lengths) for lengths in zip(*sides, strict=True)]

    def _prompts(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        if rows and isinstance(rows[0]["prompt"], str):
            return self._count([row["prompt"] for row in rows], special=True)
        texts = [self.render(row["prompt"], prompt=True, tools=_tools(row)) for row in rows]
        return self._count(texts, special=False)

    def _with_answers(self, rows: Sequence[dict[str, Any]], name: str) -> list[int]:
        if rows and isinstance(rows[0]["prompt"], str):
            return self._count([self._ended(row["prompt"] + row[name]) for row in rows], special=True)
        texts = [self.render(row["prompt"] + row[name], tools=_tools(row)) for row in rows]
        return self._count(texts, special=False)

    def changed_prompts(self, rows: Sequence[dict[str, Any]]) -> int:
        """Number of conversational rows whose prompt, ready for an answer, isn't how the whole row begins.

        Raises:
            jinja2.TemplateError: the template refuses a row.
        """
        return sum(map(self._changes_prompt, rows))

    def _changes_prompt(self, row: dict[str, Any]) -> bool:
        prompt = self.render(row["prompt"], prompt=True, tools=_tools(row))
        return any(
            not self.render(row["prompt"] + row[name], tools=_tools(row)).startswith(prompt)
            for name in _ANSWERS
            if name in row
        )

    def left_out(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Number of conversational rows with a part that the template ignores, for each such part.

        The parts are tools, tool_calls and, of what is trained, the reasoning: templates leave the
        reasoning out of earlier turns on purpose.

        Raises:
            jinja2.TemplateError: the template refuses a row.
        """
        counts = {part: sum(self._leaves_out(row, part) for row in rows if _has(row, part)) for part in _KEYS}
        return {part: count for part, count in counts.items() if count}

    def _leaves_out(self, row: dict[str, Any], part: str) -> bool:
        """Whether a row is rendered the same with and without a part."""
        messages, marked = _messages(row), "messages" in row
        whole = self.render(messages, tools=_tools(row), marked=marked)
        if part == "tools":
            bare, tools = messages, None
        else:
            bare = [{key: value for key, value in message.items() if key not in _KEYS[part]} for message in messages]
            tools = _tools(row)
        try:
            return self.render(bare, tools=tools, marked=marked) == whole
        except Exception:  # Jinja hands on whatever the template's expressions raise; it does look at the part, then
            return False

    def special_tokens(self) -> set[str]:
        """The tokenizer's special tokens: turn markers, BOS, EOS and the like."""
        return {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}

    def has_token(self, text: str) -> bool:
        """Whether `text` is one token."""
        return self._tokenizer.token_to_id(text) is not None

    def ids_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """The ids of some tokens; what is no token has none."""
        found = {token: self._tokenizer.token_to_id(token) for token in tokens}
        return {token: number for token, number in found.items() if number is not None}

    def named_tokens(self) -> set[str]:
        """BOS, EOS, pad and unknown token, those that are set."""
        return set(self._special.values())

    def beyond(self, rows: int) -> dict[str, int]:
        """Tokens, with their ids, for which an embedding of so many rows has none."""
        added = self._tokenizer.get_added_tokens_decoder()
        if self._tokenizer.get_vocab_size() <= rows and max(added, default=0) < rows:
            return {}
        return {token: number for token, number in self._tokenizer.get_vocab().items() if number >= rows}

    def stop_tokens(self) -> list[str]:
        """The tokens at which generation stops: EOS, and those of generation_config.json."""
        named = [self._tokenizer.id_to_token(token) for token in self._stop_ids]
        return [token for token in dict.fromkeys([self.eos, *named]) if token]

    def with_special_tokens(self, rows: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
        """Number of conversational rows with special tokens in what is said or reasoned, and these tokens, sorted."""
        special = sorted(self.special_tokens(), key=len, reverse=True)
        if not special:
            return 0, []
        pattern = re.compile("|".join(map(re.escape, special)))
        found = [
            {
                token
                for message in _messages(row)
                for part in _TEXTS
                for token in pattern.findall(message.get(part) or "")
            }
            for row in rows
        ]
        return sum(map(bool, found)), sorted(set().union(*found))

    def _ended(self, text: str) -> str:
        # TRL appends the EOS to plain text that doesn't end with it.
        return text if self.eos is None or text.endswith(self.eos) else text + self.eos

    def _count(self, texts: list[str], *, special: bool) -> list[int]:
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            encoded = self._tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=special)
            counts += [len(row.ids) for row in encoded]
        return counts


def _backend(folder: Path) -> Any:
    file = folder / "tokenizer.json"
    if file.exists():
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust extension raises the base class
            raise UsageError(
                f"{file} can't be read.", why=str(error).splitlines()[0], fix="Download or save the model again."
            ) from None
    # SentencePiece-only models: Transformers converts them, at the cost of importing torch.
    return load_tokenizer(folder).backend_tokenizer


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _own_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates: Transformers takes the one called default
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def _tools(row: dict[str, Any]) -> Any:
    tools = row.get("tools")
    return json.loads(tools) if isinstance(tools, str) else tools


def _messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """All messages of a row; of a pair, those of both sides."""
    if "messages" in row:
        return list(row["messages"])
    return [*row["prompt"], *(message for name in _ANSWERS for message in row.get(name, []))]


def _has(row: dict[str, Any], part: str) -> bool:
    if part == "tools":
        return bool(row.get("tools"))
    trained = [message for name in _ANSWERS for message in row.get(name, [])]
    messages = trained if part == "reasoning" and trained else _messages(row)
    return any(message.get(key) for message in messages for key in _KEYS[part])
