"""D: rules on what rows say."""

from .rule import Rule

RULES = [
    Rule(
        "D025",
        "Near duplicates",
        "warning",
        "{count} of {total} {total:row|rows} nearly {count:repeats|repeat} an earlier row: at least {percent}% of "
        "{count:its|their} three-word sequences are the same ({rows}).",
        "Rows that differ in a word or two are learnt by heart as equal ones are, and weigh as often as they stand.",
        "Look at some of them; `tunesmith prepare` removes them, unless what differs is what is asked.",
        "Lee et al. 2022, Deduplicating Training Data Makes Language Models Better",
    ),
    Rule(
        "D026",
        "Evaluation rows nearly stand in the training data",
        "warning",
        "{count} of {total} {split} {total:prompt|prompts} nearly {count:repeats|repeat} a training row's ({rows}).",
        "A score on rows that differ from training rows in a word or two proves memory, not skill.",
        "Remove them from one side, or let `tunesmith prepare` remove near duplicates before it splits.",
        "pitfalls: leakage",
    ),
    Rule(
        "D027",
        "Very short answers",
        "note",
        "{count} of {total} {total:answer|answers} {count:is|are} far shorter than the rest: {shortest} "
        "{shortest:character|characters}, where half have {median} or more ({rows}).",
        "Cut-off or empty-handed answers teach the model to give them.",
        "Look at these rows; remove them if they are no real answers.",
        "Median absolute deviation of log lengths",
    ),
    Rule(
        "D028",
        "Very long rows",
        "note",
        "{count} of {total} {total:row|rows} {count:is|are} far longer than the rest: up to {longest} characters, "
        "where half "
        "have {median} or fewer ({rows}).",
        "One long row sets the memory of its batch, or is cut; often it is several rows run together.",
        "Look at these rows; split or remove them, or set `max_length` so that they are cut.",
        "Median absolute deviation of log lengths",
    ),
    Rule(
        "D029",
        "Repetitive answers",
        "warning",
        "{count} of {total} {total:row|rows} {count:has|have} an answer that ends in a loop ({rows}): {example}.",
        "A model that is shown loops falls into them.",
        "Remove these rows, unless the repetition is what was asked for.",
        "Whisper and others test generated text by its compression ratio",
    ),
    Rule(
        "D030",
        "Refusals",
        "warning",
        "{count} of {total} {total:row|rows} {count:has|have} an answer that refuses, or tells what an AI can't do "
        "({rows}): {example}.",
        "A few refusals of harmless questions make a model refuse many.",
        "Remove these rows, unless refusing is to be learnt.",
        "Vicuna's and WizardLM's data was cleaned of them",
    ),
    Rule(
        "D031",
        "Wrongly decoded characters",
        "warning",
        "{count} of {total} {total:row|rows} looked at {count:contains|contain} characters from a wrong encoding "
        "({rows}): "
        "{example}.",
        "The model learns to write them.",
        "Repair the file (`ftfy.fix_text` undoes most of it), or export it again as UTF-8.",
        "ftfy's badness, a list of character sequences that only wrong decoding makes",
    ),
    Rule(
        "D032",
        "Placeholders",
        "warning",
        "{count} of {total} {total:row|rows} {count:contains|contain} text that should have been replaced ({rows}): "
        "{example}.",
        "The model learns to write the placeholder.",
        "Fill them in, or remove these rows; none is needed if such text is meant.",
        "Prompt templates that were saved before they were filled",
    ),
    Rule(
        "D033",
        "Several languages",
        "note",
        "{found} rows, of {total} looked at whose language can be told.",
        "A model answers in the languages it is shown; a few stray rows are often a mistake of collection.",
        "Nothing to do if this is meant; else keep one language.",
        "py3langid",
    ),
    Rule(
        "D034",
        "Chosen equals rejected",
        "error",
        "{count} {count:pair has|pairs have} the same chosen and rejected answer ({rows}).",
        "Such a pair teaches nothing: its loss stays at 0.693.",
        "Remove these rows, or set `data: {{bad_rows: drop}}` in the recipe.",
        "TRL 1.16: identical pairs sit at loss 0.6931",
    ),
    Rule(
        "D035",
        "Chosen answers are longer or shorter than rejected ones",
        "warning",
        "In {percent}% of {total} {total:pair|pairs} the chosen answer is the {longer} one; its length is {ratio} "
        "times the "
        "other's (median).",
        "Preference training takes the length for what is preferred; models then ramble, or fall silent.",
        "Balance the lengths, or evaluate with a length-controlled comparison.",
        "Singhal et al. 2023, A Long Way to Go; Park et al. 2024, Disentangling Length from Quality in DPO",
    ),
    Rule(
        "D036",
        "Uneven labels",
        "warning",
        "{good} of {total} {total:answer|answers} {good:is|are} marked as good, {bad} as bad.",
        "KTO learns little from the rarer side unless that is weighted.",
        "{advice}",
        "TRL 1.16 warns outside 1:1 to 4:3; Ethayarajh et al. 2024, equation 8",
    ),
    Rule(
        "D037",
        "One answer makes up most rows",
        "warning",
        "{percent}% of {total} {total:answer|answers} are the same: {example}.",
        "A model that always gives this answer has a low loss and knows nothing.",
        "Balance the answers, and compare scores with that of always giving this one.",
        "Class imbalance",
    ),
    Rule(
        "D038",
        "Answers that repeat the prompt",
        "warning",
        "{count} of {total} {total:answer|answers} {count:equals|equal} what was asked ({rows}).",
        "The model learns to echo; often a column was mapped twice.",
        "Check the mapping, or remove these rows.",
        "house rule",
    ),
    Rule(
        "D039",
        "Personal data",
        "warning",
        "{count} of {total} {total:row|rows} {count:seems|seem} to contain personal data: {kinds} ({rows}), as "
        "{example}.",
        "Fine-tuned models repeat what they were trained on, to whoever asks.",
        "Remove or replace it before training, unless it is public and meant.",
        "Carlini et al. 2021, Extracting Training Data from Large Language Models",
    ),
    Rule(
        "D040",
        "Secrets",
        "warning",
        "{count} of {total} {total:row|rows} {count:contains|contain} keys or tokens: {kinds} ({rows}), as {example}.",
        "Whoever has the model, or the data, has the key.",
        "Revoke them now, and remove them from the data.",
        "GitHub's secret scanning; autotrain#762",
    ),
    Rule(
        "D041",
        "Questions of evaluation tasks in the training data",
        "warning",
        "{count} of {total} {total:row|rows} {count:shares|share} 13 words in a row with questions of {task} ({rows}).",
        "A score on {task} would prove memory, not skill.",
        "Remove these rows, or don't evaluate on {task}.",
        "Brown et al. 2020 (GPT-3), 13-gram overlap",
    ),
    Rule(
        "D042",
        "Rows that contradict each other",
        "warning",
        "{count} of {total} {total:row|rows} {count:prefers, or marks|prefer, or mark} as good, what an earlier row "
        "with the same "
        "prompt doesn't ({rows}).",
        "The two cancel each other out.",
        "Keep one of each two, or neither.",
        "house rule",
    ),
    Rule(
        "D049",
        "Markup of a chat template in the text",
        "warning",
        "{count} of {total} {total:row|rows} {count:has|have} a chat template's own marks in {count:its|their} text "
        "({rows}), as {example}.",
        "The trainer applies the template again, or trains the user's turns with the rest: turns within turns, stop "
        "tokens in the middle.",
        "Give the conversations as messages without the marks, and let the template write them.",
        "Rows saved by `apply_chat_template(tokenize=False)`; pitfalls: double templates, double BOS",
    ),
]
