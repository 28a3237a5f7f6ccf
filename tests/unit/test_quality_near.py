"""Shingles, signatures and clusters of near duplicates, against plain Python."""

import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.quality import near
from tunesmith.data.quality.near import (
    band_keys,
    banding,
    candidates,
    clusters,
    common_shingles,
    components,
    identities,
    parts,
    signatures,
    similarities,
)
from tunesmith.data.quality.shingles import shingle

WORDS = st.lists(st.sampled_from("abcdefghij"), max_size=30).map(" ".join)
TEXTS = st.lists(st.text(max_size=60) | WORDS, max_size=12)


shingle(["the table of characters is made here, not within a deadline of hypothesis"])


def plain(text: str, width: int = 3) -> set[tuple[str, ...]]:
    """The shingles of a text of scripts with spaces, in plain Python."""
    words = re.findall(r"[^\W_]+", text.lower())
    if not words:
        return set()
    return {tuple(words[at : at + width]) for at in range(max(1, len(words) - width + 1))}


def jaccard(one: str, other: str) -> float:
    first, second = plain(one), plain(other)
    return len(first & second) / len(first | second) if first | second else 0.0


def documents(count: int, seed: int) -> list[str]:
    """Documents of 20 words; every third is an earlier one with one to four words changed."""
    drawn = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(500)]
    made: list[list[str]] = []
    for number in range(count):
        words = list(drawn.choice(made)) if number % 3 == 2 else drawn.choices(vocabulary, k=20)
        if number % 3 == 2:
            for _ in range(drawn.randint(1, 4)):
                words[drawn.choice([0, 1, 18, 19])] = drawn.choice(vocabulary)
        made.append(words)
    return [" ".join(words) for words in made]


def brute_force(texts: Sequence[str], threshold: float) -> list[int]:
    """The first text of each text's cluster, by comparing all pairs."""
    pairs = [
        (one, other)
        for one in range(len(texts))
        for other in range(one)
        if plain(texts[one]) and jaccard(texts[one], texts[other]) >= threshold
    ]
    labels = components(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(texts)).tolist()
    return [labels.index(label) for label in labels]


@given(st.lists(WORDS, min_size=1, max_size=8), st.integers(1, 5))
def test_shingles_are_those_of_plain_python(texts: list[str], width: int) -> None:
    made = shingle(texts, width)
    for number, text in enumerate(texts):
        own = made.hashes[made.offsets[number] : made.offsets[number + 1]]
        assert len(set(own.tolist())) == len(plain(text, width))


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_shingles_of_a_text_dont_depend_on_its_neighbours(one: list[str], other: list[str]) -> None:
    together, first, second = shingle(one + other), shingle(one), shingle(other)
    assert together.hashes.tolist() == [*first.hashes.tolist(), *second.hashes.tolist()]
    assert together.counts.tolist() == [*first.counts.tolist(), *second.counts.tolist()]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The cat sat.", "the CAT, sat", True),
        ("the cat sat", "cat the sat", False),
        ("one two", "one two", True),
        ("one two", "one two three", False),
        ("ab c de", "a bc de", False),
        ("a\0b c", "a b c", True),
        ("\ud800 lone", "lone", True),
        ("naïve café open", "NAÏVE CAFÉ OPEN", True),
        ("東京都", "東京 都", True),
        ("東京都", "京東都", False),
    ],
)
def test_case_and_punctuation_count_for_nothing_and_order_for_much(one: str, other: str, same: bool) -> None:
    hashes = shingle([one, other])
    assert (identities(hashes)[0] == identities(hashes)[1]) is np.bool_(same)


def test_scripts_without_spaces_have_a_word_for_each_letter() -> None:
    assert shingle(["東京都に住む", "Ελλάδα είναι όμορφη χώρα", "สวัสดี"]).counts.tolist() == [4, 2, 2]


def test_texts_without_words_have_no_shingles_and_short_ones_none_when_told() -> None:
    assert shingle(["", "?! ", "one two", "one two three"]).counts.tolist() == [0, 0, 1, 1]
    assert shingle(["", "?! ", "one two", "one two three"], short=False).counts.tolist() == [0, 0, 0, 1]
    assert shingle([]).counts.tolist() == []


def test_what_follows_a_million_characters_is_left_out() -> None:
    long = "a " * 500_000
    assert identities(shingle([long + "b"])) == identities(shingle([long + "c"]))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_similarities_are_exact(pairs: list[tuple[str, str]]) -> None:
    one, other = (shingle(list(side)) for side in zip(*pairs, strict=True))
    assert similarities(one, other) == pytest.approx([jaccard(*pair) for pair in pairs])


@given(st.floats(0.3, 0.97))
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands = banding(threshold)
    assert bands.bands * bands.rows <= near.PERMUTATIONS
    assert bands.found(threshold) >= 0.995
    assert bands.found(0) == 0
    assert banding(0.8) == near.Banding(16, 5)


def test_equal_values_of_signatures_estimate_similarity() -> None:
    texts = documents(300, 1)
    signed = signatures(shingle(texts))
    errors = [
        (signed[one] == signed[one - 1]).mean() - jaccard(texts[one], texts[one - 1]) for one in range(1, len(texts))
    ]
    alike = [
        (one, other) for one in range(300) for other in range(one) if 0.3 < jaccard(texts[one], texts[other]) < 0.95
    ]
    errors += [(signed[one] == signed[other]).mean() - jaccard(texts[one], texts[other]) for one, other in alike]
    assert len(alike) > 50
    assert abs(np.mean(errors)) < 0.02
    # The standard deviation of the mean of 80 draws is at most 0.056.
    assert np.max(np.abs(errors)) < 0.25


def test_equal_bands_have_equal_keys() -> None:
    signed = signatures(shingle(["a b c d e f g h", "a b c d e f g i"]))
    bands = banding(0.8)
    keys = band_keys(signed, bands)
    equal = [
        bool((signed[0, band * 5 : band * 5 + 5] == signed[1, band * 5 : band * 5 + 5]).all()) for band in range(16)
    ]
    assert (keys[0] == keys[1]).tolist() == equal
    assert 0 < sum(equal) < 16


@given(st.lists(st.integers(0, 6), max_size=17))
def test_candidates_are_all_pairs_of_a_small_group(keys: list[int]) -> None:
    found = {tuple(pair) for pair in candidates(np.array(keys, dtype=np.uint64)).tolist()}
    assert found == {(one, other) for other in range(len(keys)) for one in range(other) if keys[one] == keys[other]}


def test_in_a_large_group_all_meet_the_first_and_their_neighbours() -> None:
    pairs = candidates(np.array([7] * 100 + [8], dtype=np.uint64)).tolist()
    assert len(pairs) == len({tuple(pair) for pair in pairs})
    assert {other for one, other in pairs if one == 0} == set(range(1, 100))
    assert {other - one for one, other in pairs if one > 0} == set(range(1, 17))
    assert max(max(pair) for pair in pairs) == 99


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_clusters_are_those_of_brute_force(threshold: float) -> None:
    texts = documents(400, 2)
    right = brute_force(texts, threshold)
    assert clusters(texts, threshold).tolist() == right
    assert len(set(right)) < 350


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1_000))
def test_clusters_dont_depend_on_the_order_of_texts(seed: int) -> None:
    texts = documents(60, seed)
    order = random.Random(seed).sample(range(60), 60)
    straight, mixed = clusters(texts), clusters([texts[at] for at in order])
    groups = {frozenset(np.flatnonzero(straight == label).tolist()) for label in straight}
    assert groups == {frozenset(order[at] for at in np.flatnonzero(mixed == label)) for label in mixed}


def test_many_equal_and_many_similar_texts_are_one_cluster_each() -> None:
    base = " ".join(f"w{number}" for number in range(60))
    texts = [base] * 300 + [f"{base} x{number}" for number in range(300)] + ["other words stand here", "", "?", ""]
    found = clusters(texts).tolist()
    assert found == [0] * 600 + [600, 601, 602, 603]


def test_pairs_found_apart_arent_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, ...]] = []
    real = near._similarities_of

    def watched(texts: Sequence[str], pairs: near.Indices, common: near.Hashes) -> np.ndarray:
        compared.extend(map(tuple, pairs.tolist()))
        return real(texts, pairs, common)

    monkeypatch.setattr(near, "_similarities_of", watched)
    clusters(documents(300, 3))
    assert len(compared) == len(set(compared)) > 0


def test_nothing_at_all() -> None:
    assert clusters([]).tolist() == []
    assert clusters(["", "  "]).tolist() == [0, 1]
    assert common_shingles([]).tolist() == []


def test_boilerplate_makes_no_two_texts_alike() -> None:
    template = "You are a careful judge of products and answer in one word whether the customer liked what he bought:"
    texts = [f"{template} {number} {number * 7919}" for number in range(150)]
    assert len(set(clusters(texts, 0.4).tolist())) == 1
    found = clusters(texts, 0.4, common=common_shingles(texts))
    assert found.tolist() == list(range(150))


def test_of_few_texts_nothing_is_boilerplate() -> None:
    texts = [f"the same words stand here {number}" for number in range(99)]
    assert len(common_shingles(texts)) == 0
    assert len(common_shingles([*texts, "the same words stand here 99"])) == 3
    # Copies of a text tell no more than the text.
    assert len(common_shingles([*texts, *texts])) == 0


@given(st.lists(st.integers(0, 250_000), max_size=30))
def test_parts_hold_each_item_once(lengths: list[int]) -> None:
    made = list(parts(lengths))
    assert [at for part in made for at in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in made:
        assert sum(lengths[part]) - max(lengths[part]) <= 100_000
