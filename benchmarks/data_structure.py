"""The structure of 2M rows: ours, with the detection of layouts, against what other libraries take to load them.

python -m benchmarks.data_structure [ROUNDS] [ROWS]

Each contestant runs in a process of its own and reports its seconds from the first import to the answer, and its peak
resident memory. None of the others finds the layouts of rows; `datasets` and polars are timed until the rows' types are
known and counted. The dataset inspector of the Hub's skills takes the columns of the first row alone, by streaming: it
is measured beside the contest, as it looks at one row of the 2M. polars' streamed scan answers two sums, no structure.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from .measure import RESULTS, interleave, report

OURS = "tunesmith, structure and detection"
FIRST_ROW = "the inspector's way (first row only)"
WORDS = ["the", "of", "and", "to", "in", "that", "for", "it", "was", "with", "be", "by", "on", "not", "he", "his"]


def write_rows(path: Path, rows: int) -> None:
    """Conversations of two turns with an id and a class, about 240 bytes each."""
    chance = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            question, answer = (" ".join(chance.choices(WORDS, k=length)) for length in (14, 18))
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            row = {"id": number, "messages": messages, "source": chance.choice(["web", "book"])}
            file.write(json.dumps(row) + "\n")


def tunesmith(path: str) -> None:
    from tunesmith.data.formats import detect
    from tunesmith.data.sources import open_source
    from tunesmith.recipe.schema import Mapping

    assert detect(open_source(path).structure(), Mapping()).layout == "messages"


def datasets(path: str) -> None:
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache)
        assert rows.num_rows


def polars_read(path: str) -> None:
    import polars

    assert polars.read_ndjson(path).schema


def polars_scan(path: str) -> None:
    import polars

    asked = polars.scan_ndjson(path).select(polars.col("messages").list.len().sum(), polars.col("source").n_unique())
    assert asked.collect(engine="streaming").height


def inspector(path: str) -> None:
    import datasets

    assert next(iter(datasets.load_dataset("json", data_files=path, split="train", streaming=True)))


CONTESTANTS: dict[str, Callable[[str], None]] = {
    OURS: tunesmith,
    "datasets, load_dataset('json')": datasets,
    "polars, read_ndjson": polars_read,
    "polars, scan_ndjson (two sums)": polars_scan,
    FIRST_ROW: inspector,
}


def measured(name: str, path: Path, peaks: dict[str, list[int]]) -> float:
    """Seconds of one contestant in a fresh process; its peak memory in MB goes to `peaks`."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--run", name, str(path)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    peaks[name].append(peak)
    return float(seconds)


def run(name: str, path: str) -> None:
    began = time.perf_counter()
    CONTESTANTS[name](path)
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run(*sys.argv[2:4])
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000
    peaks: dict[str, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, rows)
        size = path.stat().st_size / 1e6
        contestants = {name: functools.partial(measured, name, path, peaks) for name in CONTESTANTS}
        seconds = interleave(contestants, rounds)
        for scale in (0.2, 4):  # memory must not follow the file's size
            write_rows(path, int(rows * scale))
            measured(OURS, path, peaks_at := defaultdict(list))
            peaks[f"{OURS}, {size * scale:,.0f} MB"] = peaks_at[OURS]
    setting = f"Structure of {rows:,} rows, {size:,.0f} MB of JSON Lines, each in a process of its own."
    report("data_structure", OURS, seconds, setting, aside=FIRST_ROW)
    highest = {name: max(found) for name, found in peaks.items()}
    for name, peak in highest.items():
        rate = f"  {rows / min(seconds[name]) / 1e6:5.2f} M rows/s at best" if name in seconds else ""
        print(f"  {name:<48} {peak:6,} MB resident{rate}")
    result = RESULTS / "data_structure.json"
    content = json.loads(result.read_text(encoding="utf-8")) | {"rows": rows, "bytes": size * 1e6, "peak_mb": highest}
    result.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
