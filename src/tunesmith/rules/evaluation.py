"""E: rules on the evaluation."""

from .rule import Rule

RULES = [
    Rule(
        "E001",
        "Too few rows to tell",
        "warning",
        "{rows} rows can show no significant difference at all.",
        "Below 6 changed rows the exact test can't reach p < 0.05 whatever happens.",
        "Hold out more rows: `data: {{test: FILE}}` or `data: {{eval: 0.1}}`.",
        "Exact McNemar: 2 * 0.5**5 = 0.0625",
    ),
    Rule(
        "E002",
        "The tuned model isn't better",
        "warning",
        "{metric}: no significant difference between tuned and base ({base:.3f} and {tuned:.3f}).",
        "Then the tuning isn't worth its cost, whatever the loss says.",
        "Look at the changed rows; train longer, on more or cleaner data, or with a higher learning rate.",
        "practice",
    ),
    Rule(
        "E003",
        "The tuned model is worse",
        "warning",
        "{metric}: tuned is significantly worse than base ({base:.3f} and {tuned:.3f}).",
        "Training has broken what the base model could do.",
        "Lower the learning rate or train shorter, and check the label audit.",
        "practice",
    ),
    Rule(
        "E004",
        "Answers run into the limit",
        "warning",
        "{percent:.0f}% of the tuned model's answers reach max_new_tokens {limit} without stopping.",
        "A model that doesn't stop was not taught to, or the limit is too short for the answers.",
        "See the label audit for rows without a stop token; or raise `evaluation: {{max_new_tokens: ...}}`.",
        "trl#1623",
    ),
    Rule(
        "E005",
        "Nothing to compare by exact match",
        "note",
        "Exact match needs a prompt and an expected answer; {layout} rows have none.",
        "For plain text only the held-out loss can be compared.",
        "Nothing to do, or give a test file with prompt and completion.",
        "house rule",
    ),
    Rule(
        "E006",
        "Exact match says little here",
        "note",
        "Expected answers are {tokens} tokens long on average; nobody writes such answers word for word.",
        "Exact match fits short, fixed answers; for open ones it stays near 0 for any model.",
        "Judge by the held-out loss here; more metrics are on the roadmap.",
        "practice",
    ),
    Rule(
        "E007",
        "Loss isn't a number",
        "error",
        "The loss of the {arm} model is NaN or infinite on {count} of {total} rows.",
        "Such a model is broken; whatever it generates means nothing.",
        "If it is the tuned one, train again with a lower learning rate, in bf16 or fp32; else check the base.",
        "measured on TRL 1.16: training goes on over NaN and logs loss 0.0",
    ),
]
