"""The usual names of columns and keys, by role."""

from typing import Final

CHATS: Final = (
    "messages",
    "conversations",
    "conversation",
    "dialog",
    "dialogue",
    "dialogs",
    "dialogues",
    "chat",
    "chats",
    "turns",
    "history",
    "chat_history",
    "conversation_history",
    "message_history",
    "thread",
    "contents",
)
_QUESTIONS: Final = (
    *("frage", "anfrage", "pregunta", "domanda", "pergunta", "vraag", "pytanie", "soru"),
    *("вопрос", "问题", "問題", "質問", "질문", "سؤال", "प्रश्न"),
)
_ANSWERS: Final = (
    *("antwort", "respuesta", "réponse", "reponse", "risposta", "resposta", "antwoord", "odpowiedź", "cevap"),
    *("ответ", "答案", "回答", "答え", "답변", "جواب", "उत्तर"),
)
PROMPTS: Final = (
    "prompt",
    "question",
    "query",
    "instruction",
    "input",
    "inputs",
    "problem",
    "user",
    "request",
    "context",
    "article",
    *_QUESTIONS,
)
PROMPTS_ALONE: Final = ("prompt", "question", "query", "instruction", "problem", "input", *_QUESTIONS)
"""Of these, the ones that hold a prompt although nothing answers it."""
COMPLETIONS: Final = (
    "completion",
    "response",
    "output",
    "solution",
    "answer",
    "target",
    "targets",
    "continuation",
    "reply",
    "assistant",
    "ideal",
    "summary",
    "highlights",
    "tldr",
    "headline",
    *_ANSWERS,
)
LOGGED: Final = tuple(
    f"{place}choices[0].message.content" for place in ("", "response.", "response.body.", "output.", "completion.")
)
"""Where logs of chat APIs hold the answer beside the request's messages."""
SUMMARIES: Final = ("summary", "highlights", "tldr", "headline")
"""Of these, the ones that sum up a long text."""
LONG_TEXTS: Final = ("document", "article", "text", "dialogue", "passage", "body", "content")
CONTEXTS: Final = ("context", "passage", "document", "background", "input", "article")
SYSTEMS: Final = ("system", "system_prompt", "system_message")
TEXTS: Final = ("text", "content", "body", "raw_content", "document")
PREFERENCES: Final = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("response_chosen", "response_rejected"),
    ("chosen_response", "rejected_response"),
    ("preferred", "rejected"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("win", "lose"),
    ("winner", "loser"),
    ("better", "worse"),
)
LABELS: Final = (
    "label",
    "kto_tag",
    "desirable",
    "is_desirable",
    "thumbs_up",
    "thumbs",
    "thumb",
    "feedback",
    "rating",
    "vote",
    "liked",
    "is_good",
    "accepted",
)
_TONES: Final = dict.fromkeys([0xFE0F, *range(0x1F3FB, 0x1F400)])  # variation selector 16, and Fitzpatrick types
GOOD: Final = frozenset({"true", "1", "1.0", "yes", "good", "desirable", "thumbs_up", "thumbs up", "up", "👍", "+1"})
BAD: Final = frozenset(
    {"false", "0", "0.0", "-1", "no", "bad", "undesirable", "thumbs_down", "thumbs down", "down", "👎"}
)


def mark(value: str) -> bool | None:
    """Whether a value says good; None where it says neither good nor bad. A thumb may have any skin tone."""
    plain = value.translate(_TONES).strip().lower()
    return plain in GOOD if plain in GOOD | BAD else None


CLASSES: Final = ("label", "labels", "class", "category")
REFERENCES: Final = (
    "reward_model.ground_truth",
    "ground_truth",
    "reference",
    "reference_answer",
    "gold_answer",
    "final_answer",
    "answer",
    "solution",
    "extra_info.answer",
    "extra_info.ground_truth",
    "answers",
    "target",
    "expected",
    "expected_answer",
    "gold",
    "ideal",
)
"""Paths under which the right answer stands, those that hold it bare first."""
FULL_ANSWERS: Final = ("extra_info.answer", "extra_info.solution", "solution", "answer", "response")
"""Of these, the ones that hold an answer with its way there, as supervised fine-tuning wants it."""
CHOICES: Final = ("choices", "options", "endings")
GOLDS: Final = ("gold", "answer", "label", "gold_index", "answer_index", "correct", "correct_index", "answerKey")
CHOICE_COLUMNS: Final = ("{}", "option_{}", "option{}", "choice_{}", "choice{}", "op{}")
"""Columns with one choice each, by its letter."""
RIVALS: Final = ("response", "answer", "output", "completion", "conversation", "reply", "generation", "human_ref")
"""What columns with two answers to be compared are called, before a letter or a number."""
WINNERS: Final = (
    "winner",
    "preference",
    "overall_preference",
    "preferred",
    "better",
    "better_response_id",
    "choice",
    "chosen",
    "label",
    "labels",
    "verdict",
    "judgment",
)
PARENTS: Final = ("parent_id", "parent_message_id", "parent")
IMAGES: Final = ("images", "image", "img", "videos", "video", "audios", "audio")
TOOLS: Final = ("tools", "functions", "available_tools")
REASONING: Final = ("reasoning_content", "thinking", "reasoning")
_PAIRED: Final = ("a better and a worse answer to each prompt", ("prompt", "chosen", "rejected"))
_ASKED: Final = ("prompts", ("prompt",))
NEEDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "sft": ("messages, prompt and completion, instruction and output, or text", ("prompt", "completion")),
    "clm": ("running text", ("text",)),
    "dpo": _PAIRED,
    "reward": _PAIRED,
    "kto": ("answers marked as good or bad", ("prompt", "completion", "label")),
    "grpo": _ASKED,
    "rloo": _ASKED,
}
"""Method -> what its rows hold, and the roles that a mapping names at least."""
