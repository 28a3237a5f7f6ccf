"""Which losses are compared as perplexities."""

import pytest

from tunesmith.evaluate import compare
from tunesmith.evaluate.rows import Encoded


def metrics(base: list[float], tokens: list[int]) -> list[str]:
    """Metrics compared for rows of so many trained tokens, with summed losses `base` under base and 0 under tuned."""
    encoded = [Encoded(ids=[0] * (count + 1), trained=[True] * (count + 1)) for count in tokens]
    work = compare.Work(tokenizer=None, batch_size=1, encoded=encoded, questions=[], max_new_tokens=1, answer_tokens=0)
    one, other = compare.Measured(base, []), compare.Measured([0.0] * len(base), [])
    found = [comparison.metric for comparison in compare._compare_loss(one, other, work)]
    assert found == [comparison.metric for comparison in compare._compare_loss(other, one, work)]
    return found


@pytest.mark.parametrize(("loss", "expected"), [(13.8, ["loss", "perplexity"]), (13.9, ["loss"])])
def test_perplexities_above_a_million_are_left_out(loss: float, expected: list[str]) -> None:
    assert metrics([loss] * 8, [1] * 8) == expected


def test_perplexities_are_left_out_where_a_resample_could_overflow() -> None:
    # 8.1 nats per token on all rows together, 800 on the first alone.
    assert metrics([800.0] + [0.0] * 7, [1] + [14] * 7) == ["loss"]
