"""R: rules on a run."""

from .rule import Rule

RULES = [
    Rule(
        "R001",
        "Loss or gradient isn't a number",
        "error",
        "{name} is {value} at step {step}; the run was stopped.",
        "Once NaN, weights stay NaN; the library logs loss 0.0 and goes on.",
        "Lower the learning rate, use bf16 or fp32 rather than fp16, and look at the rows of that step.",
        "trl#2262, trl#1173",
    ),
    Rule(
        "R002",
        "Trained parameters differ from the plan",
        "error",
        "{actual:,} parameters are trained, the plan said {planned:,}.",
        "An adapter on the wrong layers, or on none, trains without complaint.",
        "Check `adapter: {{targets: ...}}`; report it when the recipe is right.",
        "peft#1836, peft#1579",
    ),
    Rule(
        "R003",
        "Data changed since the plan",
        "error",
        "{path} isn't the file that was planned (other fingerprint).",
        "A resumed run would train on other rows and still call itself the same run.",
        "Put the file back, or start a new run.",
        "TRL 1.16: resume accepts changed data silently",
    ),
    Rule(
        "R004",
        "Loss didn't fall",
        "warning",
        "Training loss went from {first:.3f} to {last:.3f}, no more than its own noise.",
        "Nothing was learnt: learning rate too low, nothing trained, or the labels are wrong.",
        "Look at the label audit in the report, then try a higher learning rate.",
        "practice",
    ),
    Rule(
        "R005",
        "Torn checkpoint removed",
        "note",
        "Checkpoint {name} was not complete and was removed.",
        "The process ended while it was written; the library would crash on it.",
        "Nothing to do: the run continues from the last complete one.",
        "measured on TRL 1.16: 6 of 6 kill points crashed resume_from_checkpoint=True",
    ),
    Rule(
        "R006",
        "Tracker failed",
        "warning",
        "Trackio could not be used: {error}.",
        "The run goes on; its own events.jsonl has all that was logged.",
        "Set `training: {{report_to: none}}` to do without, or repair Trackio.",
        "measured on Trackio 0.43: a Trackio push killed runs",
    ),
    Rule(
        "R007",
        "More memory than planned",
        "warning",
        "The first steps took {actual:.1f} GB, {difference:.0%} more than the {planned:.1f} GB planned for the longest "
        "row, give or take {error:.0%}.",
        "Longer rows may come: a plan that is too low by more than its error can't say whether they fit.",
        "Plan again with --exact, and please report the model and the recipe if it stays.",
        "max_memory_allocated after the first steps, against the plan's estimate",
    ),
    Rule(
        "R008",
        "Training takes longer than its timeout",
        "warning",
        "At the pace of the first steps {left:.1f} hours are left; the timeout is {timeout:.1f} hours.",
        "The job is ended at its timeout; what comes after the last checkpoint is lost.",
        "Stop, raise `launch: {{timeout: ...}}` by the missing time and 30%, and resume.",
        "seconds per step of the first steps, times the steps that are left",
    ),
]
