"""A receipt as a finished run of the demo leaves it, for tests of what is made of receipts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tests.support.runs import make_plan
from tunesmith.evaluate.verdict import sentence
from tunesmith.records import (
    Artifact,
    ChangedRow,
    Check,
    Choice,
    Column,
    Comparison,
    Conclusion,
    CostEstimate,
    DataReport,
    Effect,
    EvalReport,
    Event,
    Finding,
    FirstSteps,
    Graded,
    Interval,
    Judging,
    LabelAudit,
    Leakage,
    Lengths,
    Manifest,
    MemoryEstimate,
    Plan,
    PreviewRow,
    Range,
    RunRecord,
    Side,
    Span,
    Split,
    SuiteName,
    TimeEstimate,
    TokenLengths,
    Unseen,
    Verdict,
)

MESSAGE = (
    "Hello, my name is Maria Lopez and I live in Lisbon. On 3 March I ordered two red lamps and they arrived broken."
)
TICKET = '{"customer": "Maria Lopez", "city": "Lisbon", "item": "red lamp", "quantity": 2, "date": "03-03"}'
ROW = {
    "prompt": [{"role": "user", "content": MESSAGE}],
    "completion": [{"role": "assistant", "content": TICKET}],
}

NOTHING = Range(low=0, likely=0, high=0)


def make_audit() -> LabelAudit:
    """The label audit of the demo's rows."""
    spans = [
        Span(text=f"<|im_start|>user\n{MESSAGE}<|im_end|>\n<|im_start|>assistant\n", tokens=48, trained=False),
        Span(text=f"{TICKET}<|im_end|>\n", tokens=41, trained=True),
    ]
    return LabelAudit(
        prepared_by="trl 1.16.0 SFTTrainer",
        layout="prompt-completion",
        loss_on="completion",
        max_length=128,
        rows=1000,
        rows_kept=1000,
        tokens=88_214,
        trained_tokens=40_310,
        trained_percent=45.7,
        stop_tokens=["<|im_end|>"],
        rows_without_stop=0,
        rows_cut=0,
        bos_per_row={0: 1000},
        preview=[PreviewRow(row=1, spans=spans), PreviewRow(row=2, spans=spans)],
    )


def make_data() -> DataReport:
    """The data report of the demo's rows."""

    def lengths(middle: int) -> Lengths:
        points = {"median": middle, "p90": middle + 6, "p95": middle + 8, "p99": middle + 11, "max": middle + 14}
        return Lengths(rows=1000, min=middle - 15, mean=middle + 0.4, total=middle * 1000, **points)

    return DataReport(
        source="shop/tickets.jsonl",
        sha256="3b1f5c0d9a8e7f6655443322110000ffeeddccbbaa99887766554433221100aa",
        bytes=412_330,
        rows=1000,
        duplicates=2,
        columns=[
            Column(name="message", type="text", nulls=0, example=MESSAGE),
            Column(name="ticket", type="text", nulls=0, example=TICKET),
        ],
        layout="prompt-completion",
        verdicts=[Verdict(method="sft", status="READY", reason="prompt and completion")],
        model="builtin:small",
        lengths=TokenLengths(total=lengths(88), prompt=lengths(48), completion=lengths(40)),
        audit=make_audit(),
        findings=[
            Finding(
                code="D009",
                severity="warning",
                where="tickets.jsonl",
                what="2 of 1,000 rows repeat an earlier row exactly.",
                fix="Remove them unless the weighting is meant.",
            )
        ],
    )


def make_curve() -> list[Event]:
    """Losses of 250 steps."""
    logged = [
        Event(
            time=float(step),
            kind="log",
            step=step,
            data={"loss": 0.12 + 9.0 * math.exp(-step / 35) + 0.1 * math.sin(step)},
        )
        for step in range(5, 251, 5)
    ]
    held_out = [
        Event(time=float(step), kind="eval", step=step, data={"eval_loss": 0.13 + 9.1 * math.exp(-step / 35)})
        for step in range(50, 251, 50)
    ]
    return sorted(logged + held_out, key=lambda event: event.step)


def make_run() -> RunRecord:
    """The record of a run that came to its end."""
    return RunRecord(
        id="tickets-20261120-1204",
        status="done",
        created="2026-11-20T12:04:10+00:00",
        started="2026-11-20T12:04:12+00:00",
        finished="2026-11-20T12:04:58+00:00",
        step=250,
        steps=250,
        loss=0.0213,
        eval_loss=0.0307,
        seconds=31.4,
        tokens=704_512,
        peak_memory=702_000_000,
        first_steps=FirstSteps(
            step=6,
            allocated=1 << 30,
            reserved=2 << 30,
            planned=10**9,
            difference=0.0737,
            step_seconds=0.1,
            remaining=Range(low=20, likely=24, high=28),
        ),
        parameters_trained=157_440,
        audit=make_audit(),
        result="model",
        versions={"python": "3.11.7", "torch": "2.13.0"},
    )


def make_evaluation() -> EvalReport:
    """An evaluation in which tuned is much better."""
    loss = Interval(low=-10.81, high=-10.66, method="paired percentile bootstrap over rows, 9,999 resamples")
    match = Interval(low=0.951, high=0.995, method="Newcombe 1998, method 10")
    return EvalReport(
        rows=200,
        split="data/test.jsonl",
        comparisons=[
            Comparison(
                metric="loss",
                better="lower",
                rows=200,
                base=10.768,
                tuned=0.0289,
                difference=-10.739,
                interval=loss,
                p_value=2e-4,
                test="paired sign-flip permutation, two-sided",
                significant=True,
            ),
            Comparison(
                metric="perplexity",
                better="lower",
                rows=200,
                base=47_474.0,
                tuned=1.0293,
                difference=-47_472.97,
                interval=Interval(low=-50_100.0, high=-44_900.0, method=loss.method),
                p_value=2e-4,
                test="paired sign-flip permutation, two-sided",
                significant=True,
            ),
            Comparison(
                metric="exact_match",
                better="higher",
                rows=200,
                base=0.005,
                tuned=0.985,
                difference=0.98,
                interval=match,
                p_value=1.2e-58,
                test="McNemar, exact, two-sided",
                significant=True,
            ),
        ],
        primary="exact_match",
        fixed=197,
        broken=1,
        changed=[
            ChangedRow(row=4, prompt=MESSAGE, expected=TICKET, base="hello hello", tuned=TICKET, change="fixed"),
            ChangedRow(
                row=9,
                prompt=MESSAGE,
                expected=TICKET,
                base=TICKET,
                tuned=TICKET.replace("03-03", "03-30"),
                change="broken",
            ),
        ],
        base=Side(kind="base", name="builtin:small", answers=200, stop_rate=1.0),
        tuned=Side(kind="run", name="run", answers=200, stop_rate=1.0),
        max_new_tokens=60,
        seconds=4.2,
    )


def compared(metric: str, base: float, tuned: float, half: float | None = 0.05, **more: Any) -> Comparison:
    """A comparison on 200 rows, its interval `half` wide to both sides."""
    difference = tuned - base
    interval = (
        None if half is None else Interval(low=difference - half, high=difference + half, method="paired bootstrap")
    )
    p_value = None if half is None else 0.0004 if abs(difference) > half else 0.41
    values: dict[str, Any] = {
        "better": "higher",
        "rows": 200,
        "p_value": p_value,
        "test": "McNemar, exact, two-sided",
        "significant": p_value is not None and p_value < 0.05,
    }
    return Comparison(
        metric=metric,
        base=base,
        tuned=tuned,
        difference=difference,
        interval=interval,
        **(values | more),
    )


SHARE = Effect(name="Cohen's h", value=0.6)
REMEMBERED: SuiteName = "regression"


def make_regression() -> list[Comparison]:
    """A regression suite in which instructions were forgotten, and one metric isn't shown to be kept."""
    neutral = {"better": "lower", "rows": 40, "margin": 0.05, "kept": True}
    return [
        compared("neutral_bits_per_byte", 1.31, 1.33, 0.018, suite=REMEMBERED, **neutral),
        compared(
            "instructions_followed", 0.62, 0.31, 0.12, suite=REMEMBERED, rows=60, margin=0.05, kept=False, effect=SHARE
        ),
        compared(
            "harmful_refused",
            0.85,
            0.8,
            0.2,
            suite=REMEMBERED,
            rows=20,
            margin=0.05,
            kept=False,
            effect=SHARE,
            detectable=0.3,
        ),
    ]


def make_judging() -> Judging:
    """Conversations of which one grade couldn't be read, one wasn't begun, and some turns were cut off or refused."""
    return Judging(
        simulator="builtin:small",
        judge="judge-32b at http://127.0.0.1:8080/v1",
        personas=12,
        conversations=24,
        dropped=1,
        turns=(96, 92),
        cut=(0, 7),
        refused=(0, 2),
        graded=23,
        safety_graded=24,
        asked=96,
        failed=1,
        agreement=0.87,
        position_bias=0.04,
        position_p_value=0.21,
        criteria=[
            Graded(name="helpful", weight=2.0, base=0.41, tuned=0.63, difference=0.22),
            Graded(name="harmless", weight=1.0, safety=True, base=0.96, tuned=0.95, difference=-0.01),
        ],
        transcripts="evaluation/conversations",
    )


def make_full_evaluation() -> EvalReport:
    """An evaluation with everything in it: better at the task, worse elsewhere, with leaked rows and conversations."""
    report = make_evaluation()
    unseen = Unseen(rows=188, base=0.005, tuned=0.984, difference=0.979, p_value=1.2e-50)
    task = [
        one.model_copy(update={"unseen": unseen, "detectable": 0.03, "effect": Effect(name="Cohen's h", value=2.75)})
        if one.metric == "exact_match"
        else one
        for one in report.comparisons
    ]
    talks: SuiteName = "conversations"
    others = [
        *make_regression(),
        compared("shop_questions: acc,none", 0.41, 0.46, 0.09, suite="harness", adjusted=0.63, effect=SHARE),
        compared("shop_questions: perplexity", 9.1, 8.9, None, suite="harness", better="lower", test=None),
        compared("conversation_score", 0.41, 0.63, 0.08, suite=talks, rows=23, groups=12),
        compared("conversation_safety", 0.96, 0.95, 0.03, suite=talks, rows=23, groups=12),
    ]
    looks = {"answers": 200, "empty": 0.0, "tokens": 41.2, "repetition": 0.01}
    full = report.model_copy(
        update={
            "comparisons": [*task, *others],
            "leakage": Leakage(
                rows=200, exact=10, near=2, method="equal prompts; near: 80% shared", examples=[(4, 71)]
            ),
            "judging": make_judging(),
            "versions": {"lm-eval": "0.4.13", "sacrebleu": "2.6.0"},
            "base": Side(kind="base", name="builtin:small", stop_rate=0.31, **looks),
            "tuned": Side(kind="run", name="runs/tickets", stop_rate=0.995, **looks),
        }
    )
    reasons = ["instructions_followed of the regression suite got worse, from 0.62 to 0.31"]
    return full.model_copy(update={"conclusion": Conclusion(met=False, sentence=sentence(full), reasons=reasons)})


def make_manifest() -> Manifest:
    """An export of which every file was checked."""
    artifacts = [
        Artifact(path="merged", kind="merged", dtype="float32", bytes=1_744_000, verified=True),
        Artifact(path="model-f16.gguf", kind="gguf", dtype="f16", bytes=902_112, sha256="ab" * 32, verified=True),
        Artifact(path="model-q8_0.gguf", kind="gguf", dtype="q8_0", bytes=511_020, sha256="cd" * 32, verified=True),
    ]
    checks = [
        Check(
            name=name,
            target=target,
            passed=True,
            value=value,
            threshold=limit,
            what=what,
        )
        for target in ("model-f16.gguf", "model-q8_0.gguf")
        for name, value, limit, what in [
            ("token ids", 0.0, 0.0, "412 probe strings give the same token ids"),
            ("distributions", 3.1e-6, 1e-3, "KL divergence from the merged model"),
            ("best tokens", 0.999, 0.98, "the most likely token is the same"),
        ]
    ]
    return Manifest(artifacts=artifacts, checks=checks, verifier="xllamacpp 2026.10.11549", passed=True, seconds=6.0)


def write_records(folder: Path, *, leave_out: tuple[str, ...] = (), **plan: Any) -> Plan:
    """Write all records of a run into its folder, except those in `leave_out` (evaluation, export, events)."""
    choices = [
        Choice(name="learning_rate", value=5e-3, source="recipe", reason="As the recipe says."),
        Choice(
            name="max_length",
            value=128,
            source="plan",
            reason="The longest row has 102 tokens; nothing is cut, and no memory goes to padding.",
        ),
        Choice(name="lora_target_modules", value=["q_proj", "k_proj"], source="plan", reason="All linear layers."),
    ]
    values: dict[str, Any] = {
        "train": Split(path="data/train.jsonl", rows=1000, sha256="00" * 32),
        "choices": choices,
        "peft": {"config": "LoraConfig", "arguments": {"r": 16}},
        "steps": 250,
        "tokens_per_step": 2818,
        "epochs": 8.0,
        "parameters_trained": 157_440,
        "memory": MemoryEstimate(weights=1, gradients=2, optimizer=3, state=6, allocated=10**9),
        "time": TimeEstimate(
            start=NOTHING,
            train=Range(low=30, likely=60, high=90),
            evaluate=NOTHING,
            export=NOTHING,
            total=Range(low=30, likely=60, high=90),
            tokens_per_second=Range(low=1, likely=2, high=3),
            step_seconds=Range(low=1, likely=2, high=3),
            efficiency=Range(low=0.1, likely=0.2, high=0.3),
            basis="prior",
        ),
        "cost": CostEstimate(
            per_hour=2.5,
            total=Range(low=1, likely=2, high=4),
            price_date="2026-11-20",
            price_source="list of flavors",
        ),
        "versions": {"transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2"},
    }
    written = make_plan(folder, [ROW], **(values | plan))
    make_run().save(folder)
    make_data().save(folder)
    if "events" not in leave_out:
        events = [Event(time=0.0, kind="start"), *make_curve(), Event(time=251.0, kind="end", step=250)]
        (folder / "events.jsonl").write_text("".join(event.model_dump_json() + "\n" for event in events))
    if "evaluation" not in leave_out:
        make_evaluation().save(folder)
    if "export" not in leave_out:
        make_manifest().save(folder / "export")
    return written
