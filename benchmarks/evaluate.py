"""Answers and likelihoods of an evaluation: the guides' loop, lm-evaluation-harness's batching, and ours.

python -m benchmarks.evaluate [ROUNDS]

One core. The built-in model (0.4M parameters) and one of 30M with random weights.

Answers: 500 prompts of 8 to 64 tokens, with answers that end after 1 to 96. The guides' loop gives `model.generate` one
prompt at a time; ours is what an evaluation does at its default batch size. Both are greedy, stop at the same tokens,
and are held to give equal answers. Of the larger model the loop gets every tenth prompt, and its time counts ten
times.

Likelihoods: 500 answers of 1 to 30 tokens, and 125 questions with four options of one token. lm-eval's own `HFLM` gets
the same token ids at the same batch size, and its numbers are held to be equal. What counts are CPU-seconds.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tunesmith.evaluate.measure import row_losses
from tunesmith.evaluate.rows import Encoded, Question
from tunesmith.evaluate.subject import Drawing, Local
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.models.source import locate
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Evaluation

from .measure import interleave, report

OURS, LOOP, HARNESS = "tunesmith", "one prompt at a time", "lm-eval's batching"
COUNT, LONGEST, SEED = 500, 96, 7
BATCH = Evaluation().batch_size
FOUND: dict[str, Any] = {}
"""What each contestant found, by its name."""


def model_of(size: str) -> Any:
    """The built-in model, or a larger one with random weights whose next tokens are far apart."""
    if size == "small":
        return load_model(locate("builtin:small").location, dtype="float32").eval()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(SEED)
    sizes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 15, "num_attention_heads": 6}
    config = AutoConfig.for_model("qwen3", vocab_size=16_384, num_key_value_heads=2, head_dim=64, **sizes)
    return AutoModelForCausalLM.from_config(config).eval()


class Numbers:
    """A tokenizer for prompts that are numbers of tokens, so that a model of any vocabulary can be asked."""

    pad_token_id, eos_token_id = 0, None

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """The ids of a text."""
        return {"input_ids": [int(number) for number in text.split()]}

    def decode(self, ids: list[int], **_: Any) -> str:
        """The text of ids."""
        return " ".join(map(str, ids))


def timed(name: str, work: Callable[[], Any], times: int = 1) -> float:
    """CPU-seconds of the work, times so many; what it found is kept under the name."""
    began = time.process_time()
    FOUND[name] = work()
    return (time.process_time() - began) * times


def answers(size: str, rounds: int) -> None:
    """The contest in answers."""
    import torch

    model, drawn = model_of(size), random.Random(SEED)
    vocabulary = model.config.vocab_size
    prompts = [[drawn.randrange(10, vocabulary) for _ in range(drawn.randint(8, 64))] for _ in range(COUNT)]
    model.generation_config.eos_token_id = drawn.sample(range(vocabulary), vocabulary // 25)
    every = 1 if size == "small" else 10
    tokenizer: Any = Numbers()
    questions = [Question(number, "", None, tokenizer.decode(ids)) for number, ids in enumerate(prompts, start=1)]

    def loop() -> list[list[int]]:
        found = []
        for prompt in prompts[::every]:
            ids = torch.tensor([prompt])
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
            with torch.no_grad():
                found.append(
                    model.generate(**given, do_sample=False, max_new_tokens=LONGEST)[0, len(prompt) :].tolist()
                )
        return found

    def ours() -> list[list[int]]:
        found = Local("model", model, tokenizer, BATCH).answers(questions, Drawing(LONGEST), silent)
        return [answer.ids for answer in found]

    contestants = {OURS: functools.partial(timed, OURS, ours), LOOP: functools.partial(timed, LOOP, loop, every)}
    seconds = interleave(contestants, rounds)
    if FOUND[OURS][::every] != FOUND[LOOP]:
        raise SystemExit("The answers differ.")
    lengths = [len(answer) for answer in FOUND[OURS]]
    setting = f"{COUNT} greedy answers of {min(lengths)} to {max(lengths)} tokens, {size} model, CPU-seconds."
    report(f"evaluate_answers_{size}", OURS, seconds, setting, more={"tokens": sum(lengths), "batch_size": BATCH})


def likelihood(size: str, kind: str, rounds: int) -> None:
    """The contest in likelihoods of answers, or of one-token options."""
    from lm_eval.models.huggingface import HFLM

    model, drawn = model_of(size), random.Random(SEED)
    vocabulary = model.config.vocab_size
    requests: list[tuple[tuple[str, str], list[int], list[int]]] = []
    for number in range(COUNT // (1 if kind == "answers" else 4)):
        asked = [drawn.randrange(10, vocabulary) for _ in range(drawn.randint(8, 64))]
        lengths = [drawn.randint(1, 30)] if kind == "answers" else [1] * 4
        for place, length in enumerate(lengths):
            continued = [drawn.randrange(10, vocabulary) for _ in range(length)]
            requests.append(((str(number), str(place)), asked, continued))
    rows = [Encoded(one + two, [False] * len(one) + [True] * len(two)) for _, one, two in requests]
    tokenizer = load_tokenizer(locate("builtin:small").location)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=1024)

    def theirs() -> list[float]:
        return [-value for value, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    def ours() -> list[float]:
        return row_losses(model, rows, batch_size=BATCH, label="", progress=silent)

    contestants = {OURS: functools.partial(timed, OURS, ours), HARNESS: functools.partial(timed, HARNESS, theirs)}
    seconds = interleave(contestants, rounds)
    off = max(abs(one - two) / abs(two) for one, two in zip(FOUND[OURS], FOUND[HARNESS], strict=True))
    if off > 1e-4:
        raise SystemExit(f"The likelihoods differ by {off:.1e}.")
    setting = f"Log-likelihoods of {COUNT} {kind}, {size} model, CPU-seconds."
    more = {"largest_relative_difference": off, "batch_size": BATCH}
    report(f"evaluate_likelihood_{size}_{kind}", OURS, seconds, setting, more=more)


def main() -> None:
    """Run all contests."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    for size in ("small", "30m"):
        answers(size, rounds)
        for kind in ("answers", "options"):
            likelihood(size, kind, rounds)


if __name__ == "__main__":
    main()
