"""Near duplicates among short documents: ours against datasketch and rensa, and ours at a million documents.

python -m benchmarks.data_duplicates [DOCUMENTS] [PEERS_DOCUMENTS]

One core. Documents are generated: 15 to 40 words of a vocabulary of 50,000 (of six
letters, in the mean); a tenth of them repeat another one of the
ten before with up to three words changed, so that pairs of every similarity around the threshold of 0.8 occur. All
contestants compare three-word shingles. Ours verifies each pair exactly; the peers give candidates by 128 permutations,
as they do by default. What is right is told by brute force: all pairs that share a shingle, compared as sets.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version

import datasketch
import numpy as np
import rensa

from tunesmith.data.quality.near import THRESHOLD, clusters

from .measure import interleave, report

OURS = "tunesmith"
LETTERS = "etaoinshrdlu"
VOCABULARY = [
    "".join(random.Random(word).choices(LETTERS, k=2 + word % 7)) + LETTERS[word % 12] for word in range(50_000)
]
PERMUTATIONS = 128
ROUNDS = 3


def generate(count: int, seed: int = 0) -> list[str]:
    """Documents, a tenth of them near duplicates of others."""
    drawn = random.Random(seed)
    documents: list[str] = []
    for number in range(count):
        if number % 10 == 9:
            words = documents[-drawn.randint(1, 9)].split()
            for _ in range(drawn.randint(0, 3)):
                words[drawn.randrange(len(words))] = drawn.choice(VOCABULARY)
        else:
            words = drawn.choices(VOCABULARY, k=drawn.randint(15, 40))
        documents.append(" ".join(words))
    return documents


def shingles(document: str) -> set[str]:
    """The three-word shingles of a document, in plain Python."""
    words = document.split()
    return {" ".join(words[at : at + 3]) for at in range(len(words) - 2)}


def brute_force(documents: Sequence[str]) -> set[int]:
    """Documents with an earlier one at least 0.8 similar."""
    sets = [shingles(document) for document in documents]
    holders: dict[str, list[int]] = defaultdict(list)
    repeats = set()
    for number, own in enumerate(sets):
        earlier = {other for shingle in own for other in holders[shingle]}
        if any(len(own & sets[other]) >= THRESHOLD * len(own | sets[other]) for other in earlier):
            repeats.add(number)
        for shingle in own:
            holders[shingle].append(number)
    return repeats


def ours(documents: Sequence[str]) -> set[int]:
    found = clusters(documents)
    return set(np.flatnonzero(found != np.arange(len(documents))).tolist())


def by_datasketch(documents: Sequence[str]) -> set[int]:
    index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sets = ([shingle.encode() for shingle in shingles(document)] for document in documents)
    repeats = set()
    for number, signature in enumerate(datasketch.MinHash.generator(sets, num_perm=PERMUTATIONS)):
        if index.query(signature):
            repeats.add(number)
        index.insert(number, signature, check_duplication=False)
    return repeats


def by_rensa(documents: Sequence[str]) -> set[int]:
    index = rensa.RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, use_lsh=True)
    added = index.add_pairs([(str(number), list(shingles(document))) for number, document in enumerate(documents)])
    return {number for number, new in enumerate(added) if not new}


CONTESTANTS: dict[str, Callable[[Sequence[str]], set[int]]] = {
    OURS: ours,
    "datasketch": by_datasketch,
    "rensa": by_rensa,
}


def timed(find: Callable[[Sequence[str]], set[int]], documents: Sequence[str]) -> float:
    """Seconds of a contestant on the core: other programs that share it don't count."""
    began = time.process_time()
    find(documents)
    return time.process_time() - began


def accuracy(found: set[int], right: set[int]) -> dict[str, float]:
    """Recall and precision of the documents that are said to repeat an earlier one."""
    both = len(found & right)
    return {"recall": round(both / len(right), 5), "precision": round(both / max(len(found), 1), 5)}


def main() -> None:
    most, few = (int(sys.argv[at]) if len(sys.argv) > at else count for at, count in ((1, 1_000_000), (2, 20_000)))
    # One core for all; rensa's threads are rayon's, NumPy's those of BLAS, which nothing here calls.
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    documents = generate(few)
    right = brute_force(documents)
    scores = {name: accuracy(find(documents), right) for name, find in CONTESTANTS.items()}
    seconds = interleave(
        {name: functools.partial(timed, find, documents) for name, find in CONTESTANTS.items()}, ROUNDS
    )
    many = generate(most)
    began = time.perf_counter()
    core = timed(ours, many)
    wall = time.perf_counter() - began
    characters = sum(map(len, many)) / most
    print(
        f"\n{OURS}, {most:,} documents of {characters:.0f} characters: {core:.1f} s on the core, {wall:.1f} s by the "
        f"clock; {most / core:,.0f} documents per second of the core."
    )
    for name, score in scores.items():
        print(
            f"{name} against brute force on {few:,}: recall {score['recall']:.2%}, precision {score['precision']:.2%}."
        )
    report(
        "data_duplicates",
        OURS,
        seconds,
        f"Near duplicates (Jaccard 0.8, three-word shingles) among {few:,} documents of {characters:.0f} characters, "
        "one core, seconds of that core.",
        more={
            "documents": few,
            "documents_per_second": {name: round(few / sorted(times)[ROUNDS // 2]) for name, times in seconds.items()},
            "against_brute_force": {"documents": few, "repeats": len(right), **scores},
            "alone": {
                "documents": most,
                "seconds": core,
                "clock_seconds": wall,
                "documents_per_second": round(most / core),
            },
            "peers": {name: version(name) for name in CONTESTANTS if name != OURS},
        },
    )


if __name__ == "__main__":
    main()
