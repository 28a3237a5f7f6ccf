"""Whether llama.cpp makes of an exported file what Transformers makes of the merged model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..progress import Progress, silent
from ..records import Check, Finding
from ..rules import finding
from .compare import LIMITS, agrees_on_best, divergence_from_best, greedy_stops, stop_tokens
from .convert import Kind
from .engine import Engine, EngineError, EngineLackingError, serve
from .merge import Merge
from .probes import CHATS, Row, strings

if TYPE_CHECKING:
    from torch import Tensor

BEST: Final = 200
"""Most likely tokens that are asked of llama.cpp at each position; the rest are compared together."""
SECONDS: Final = 1800.0
"""Time for all checks of one file."""
MARGIN: Final = 16
"""Tokens of context beyond the longest probe."""

Chat = tuple[list[dict[str, Any]], list[int]]
"""Messages, and the token ids of the prompt made of them."""


@dataclass(frozen=True)
class Expected:
    """What Transformers makes of the merged model, computed once for all files.

    Attributes:
        tokens: Text -> token ids.
        normalized: Number of texts left out, as the tokenizer normalises them and llama.cpp never does.
        add_special: Whether the ids of `tokens` include BOS and EOS.
        template: Text of the chat template.
        chats: Name of a chat -> chat; only those that the template accepts.
        prefixes: Tokens after each of which the next token's distribution is compared.
        distributions: Log-probabilities after each prefix, [prefixes, vocabulary]; None without held-out rows.
        end: Text of the first stop token.
        stops: Tokens after each of which the merged model emits a stop token.
        limit: KL divergence (nats) above which a file could as well hold the base model.
    """

    tokens: dict[str, list[int]]
    normalized: int
    add_special: bool
    template: str | None
    chats: dict[str, Chat]
    prefixes: list[list[int]]
    distributions: Tensor | None
    end: str
    stops: list[list[int]]
    limit: float


@dataclass
class Verdict:
    """What came of checking one file; without any check it is neither verified nor at fault."""

    target: str
    checks: list[Check] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed for check in self.checks)

    @property
    def verified(self) -> bool:
        """Whether checks were made, and none failed."""
        return bool(self.checks) and self.passed

    def judge(
        self,
        code: str,
        name: str,
        passed: bool,
        what: str,
        *,
        value: float | None = None,
        limit: float | None = None,
        **details: object,
    ) -> None:
        """Enter a check, and the finding of rule `code` if it failed."""
        self.checks.append(
            Check(name=name, target=self.target, passed=passed, value=value, threshold=limit, what=what, code=code)
        )
        if not passed:
            self.tell(code, value=value, limit=limit, **details)

    def tell(self, code: str, **details: object) -> None:
        """Enter a finding."""
        self.findings.append(finding(code, f"export/{self.target}", severity=None, target=self.target, **details))


def expect(merge: Merge, tokenizer: Any, rows: Sequence[Row], raw: Sequence[dict[str, Any]]) -> Expected:
    """Ask tokenizer and merged model for all that files are compared with."""
    add_special = not tokenizer.chat_template
    normalizer = tokenizer.backend_tokenizer.normalizer
    texts = strings(raw, tokenizer)
    kept = [text for text in texts if normalizer is None or normalizer.normalize_str(text) == text]
    return Expected(
        tokens={text: tokenizer(text, add_special_tokens=add_special)["input_ids"] for text in kept},
        normalized=len(texts) - len(kept),
        add_special=add_special,
        template=tokenizer.get_chat_template() if tokenizer.chat_template else None,
        chats=_chats(tokenizer),
        prefixes=[row.whole[:end] for row in rows for end in row.ends],
        distributions=merge.expected,
        end=tokenizer.decode(stop_tokens(merge.model)[:1]),
        stops=greedy_stops(merge.model, rows),
        limit=merge.limit,
    )


def _chats(tokenizer: Any) -> dict[str, Chat]:
    from jinja2 import TemplateError

    found: dict[str, Chat] = {}
    for name, messages in CHATS.items() if tokenizer.chat_template else ():
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            continue
        found[name] = messages, tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def verify(path: Path, kind: Kind, expected: Expected, *, threads: int, progress: Progress = silent) -> Verdict:
    """Load the GGUF file in llama.cpp and compare; where llama.cpp is absent or too slow, nothing is claimed."""
    verdict = Verdict(path.name)
    longest = max(map(len, [*expected.tokens.values(), *expected.prefixes, *expected.stops]))
    try:
        with serve(path, context=longest + MARGIN, threads=threads, seconds=SECONDS) as engine:
            verdict.judge("X012", "loads", True, "llama.cpp loads the file")
            _check_tokens(verdict, engine, expected)
            _check_chats(verdict, engine, expected)
            _check_distributions(verdict, engine, kind, expected, progress)
            _check_stops(verdict, engine, expected)
    except EngineLackingError as error:
        verdict = Verdict(path.name)
        verdict.tell("X010", reason=error.reason, remedy=error.remedy)
    except EngineError as error:
        verdict.judge("X012", "answers" if verdict.checks else "loads", False, str(error), reason=error)
    return verdict


def _check_tokens(verdict: Verdict, engine: Engine, expected: Expected) -> None:
    wrong = [
        text for text, ids in expected.tokens.items() if engine.tokenize(text, add_special=expected.add_special) != ids
    ]
    left_out = f", {expected.normalized} that the tokenizer normalises left out" if expected.normalized else ""
    what = f"texts of {len(expected.tokens)} that get other token ids{left_out}{_example(wrong)}"
    details = {"count": len(wrong), "total": len(expected.tokens)}
    verdict.judge("X001", "token ids", not wrong, what, value=len(wrong), limit=0, **details)


def _check_chats(verdict: Verdict, engine: Engine, expected: Expected) -> None:
    """Compare the template's text too: llama.cpp puts ChatML in place of a missing template, other engines don't."""
    if expected.template is None:
        return
    wrong = [name for name, (messages, ids) in expected.chats.items() if _chat_ids(engine, messages) != ids]
    # llama.cpp drops the newline at the end, which Jinja doesn't render either.
    if engine.properties()["chat_template"].removesuffix("\n") != expected.template.removesuffix("\n"):
        wrong.append("the template's text")
    total = len(expected.chats) + 1
    what = f"of {total - 1} chats and the template's text that differ{_example(wrong)}"
    verdict.judge("X002", "chat template", not wrong, what, value=len(wrong), limit=0, count=len(wrong), total=total)


def _chat_ids(engine: Engine, messages: list[dict[str, Any]]) -> list[int] | None:
    """Token ids of a chat as the server feeds them to the model; None when the file's template refuses it.

    The server takes BOS from the rendered text and puts it back as it tokenizes, so only ids can be compared.
    """
    try:
        return engine.tokenize(engine.render(messages), add_special=True)
    except EngineError:
        return None


def _check_distributions(verdict: Verdict, engine: Engine, kind: Kind, expected: Expected, progress: Progress) -> None:
    if expected.distributions is None:
        verdict.tell("X014", what="The distributions", reason="the run has no rows to compare on")
        return
    limits, total, agreeing, count = LIMITS[kind], 0.0, 0, len(expected.prefixes)
    for place, (prefix, reference) in enumerate(zip(expected.prefixes, expected.distributions, strict=True)):
        progress(f"checking {verdict.target}", place, count)
        best = engine.best(prefix, min(BEST, len(reference)))
        total += divergence_from_best(reference, best)
        agreeing += agrees_on_best(reference, best, limits["tie"])
    progress(f"checking {verdict.target}", count, count)
    value, share = total / count, agreeing / count
    # A coarser type may rightly differ by more than a light training changed; f16 may not.
    limit = min(limits["kl"], expected.limit) if kind == "f16" else limits["kl"]
    what = f"mean KL divergence from the merged model at {count} positions, nats; at most"
    verdict.judge("X003", "distributions", value <= limit, what, value=value, limit=limit)
    what = f"share of {count} positions with the same most likely token; at least"
    verdict.judge("X004", "best tokens", share >= limits["top1"], what, value=share, limit=limits["top1"])


def _check_stops(verdict: Verdict, engine: Engine, expected: Expected) -> None:
    if not expected.stops:
        verdict.tell("X014", what="Stopping", reason="the merged model itself ended none of its answers")
    running_on = sum(not engine.stops(prefix) for prefix in expected.stops)
    wrong_end = engine.properties()["eos_token"] != expected.end
    wrong, total = running_on + wrong_end, len(expected.stops) + 1
    example = "; differs: the EOS token" if wrong_end else ""
    what = f"of {total - 1} answers and the EOS token that don't stop where the merged model does{example}"
    verdict.judge("X005", "stopping", not wrong, what, value=wrong, limit=0, count=wrong, total=total)


def _example(wrong: Sequence[str]) -> str:
    return f"; differs: {wrong[0]!r}" if wrong else ""
