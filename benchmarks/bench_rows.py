"""Rows of the table of `make bench`, and what the comparisons share."""
import bisect
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

BIN = Path("build/bin")
DATA = Path("data/encyclopedia/train.txt")
TOKENIZER = Path("data/roberta-base")
PEERS = Path(os.environ.get("PEERS_ROOT", ".peers")).absolute() / "bin"


@dataclasses.dataclass
class Row:
    name: str
    ours: str = ""
    peer: str = ""
    ratio: float | None = None  # above 1: ours is better
    spread: tuple | None = None  # least and largest ratio of a block
    asked: str = ""
    bound: str = ""  # what limits it, and the share that is reached


HEADER = ("", "ours", "peer", "ratio", "spread", "asked", "of the bound")


def cells(row):
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = "" if row.spread is None else f"{row.spread[0]:.2f} - {row.spread[1]:.2f}"
    return (row.name, row.ours, row.peer, ratio, spread, row.asked, row.bound)


def markdown(rows):
    lines = [HEADER, ("---",) + ("---:",) * 6] + [cells(row) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def finish(rows, path):
    """Prints the rows, and appends them to the file of `make bench`."""
    print(markdown(rows), flush=True)
    if path:
        with open(path, "a", encoding="utf8") as file:
            for row in rows:
                file.write(json.dumps(dataclasses.asdict(row)) + "\n")


def read(path):
    with open(path, encoding="utf8") as file:
        return [Row(**json.loads(line)) for line in file]


def compare(name, ours, peer, text, asked="", bound="", lower_is_better=False):
    """A row of values that were measured block by block; text formats a value."""
    ratios = [p / o if lower_is_better else o / p for o, p in zip(ours, peer)]
    return Row(name, text(statistics.median(ours)), text(statistics.median(peer)),
               statistics.median(ratios), (min(ratios), max(ratios)), asked, bound)


def machine():
    """One line: processor, instruction sets that matter, date."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in text.splitlines()
                  if line.startswith("model name")), platform.machine())
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
            if f" {name}" in text]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (f"{os.cpu_count()} cores of {model} ({', '.join(sets)}), "
            f"{datetime.date.today()}, load {load}")


def write_batches(
        path, steps, batch_size, text=DATA, max_seq_length=512, ranks=1):
    """The batches that train_bert makes with the same options."""
    subprocess.run(
        [BIN / "write_batches", text, TOKENIZER, path, "--steps", str(steps),
         "--batch_size", str(batch_size), "--ranks", str(ranks),
         "--max_seq_length", str(max_seq_length)],
        check=True)
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def useful_flops(batch, shape):
    """Floating-point operations of a step that no implementation can do without:
    2 for each weight and token forward and 4 backward, nothing for padding, the
    head and what of the last layer is neither key nor value on masked tokens only."""
    layers, _, ff, hidden = shape
    vocabulary = 50265
    bounds = batch["cu_seqlens"]
    masked = sorted(batch["masked"])
    tokens = len(batch["ids"])
    lengths = [(b - a, bisect.bisect_left(masked, b) - bisect.bisect_left(masked, a))
               for a, b in zip(bounds, bounds[1:])]

    def layer(outputs, pairs):
        return (tokens * 2 * hidden * hidden + outputs * 2 * hidden * (hidden + ff)
                + 2 * pairs * hidden)

    whole = layer(tokens, sum(length * length for length, _ in lengths))
    last = layer(len(masked), sum(length * queries for length, queries in lengths))
    head = len(masked) * hidden * (hidden + vocabulary)
    return 6 * ((layers - 1) * whole + last + head)


def product_peak(threads):
    """FLOP/s of a product of square matrices here and now, ours or libtorch's,
    whichever is faster, by dtype. In bf16 products may be made in fp32."""
    output = subprocess.run(
        [BIN / "products_benchmark", "--benchmark_filter=square",
         "--benchmark_format=json", "--benchmark_min_time=0.3"], check=True,
        capture_output=True, text=True,
        env=dict(os.environ, OMP_NUM_THREADS=str(threads))).stdout
    rate = {}
    for line in json.loads(output)["benchmarks"]:
        _, dtype, _, count, *_ = line["name"].split("/")
        if int(count) == threads:
            rate[dtype] = max(rate.get(dtype, 0), 1e9 * line["rate"])
    return {"fp32": rate["fp32"], "bf16": max(rate.values())}


def in_blocks(sides, blocks):
    """Runs all sides in each block, in turn forwards and backwards (A B B A), each
    in a process of its own. Returns the results of each side."""
    results = {name: [] for name in sides}
    for block in range(blocks):
        order = list(sides) if block % 2 == 0 else list(reversed(sides))
        for name in order:
            result = sides[name]()
            results[name].append(result)
            print(f"block {block + 1}, {name}: {result.rate:,.0f} tokens/s, "
                  f"{result.memory / 2**20:,.0f} MiB", flush=True)
    return results


@dataclasses.dataclass
class Run:
    """What one process measured, or several of ours."""
    rate: float  # useful tokens per second after the warm-up
    memory: int  # peak, in bytes
    losses: list
    first_step: float = 0.0  # seconds from exec to the end of the first step


def check_losses(results):
    """Not the same weights, so only: all began at ln(50265) and learn alike."""
    runs = {name: runs[-1] for name, runs in results.items()}
    for name, run in runs.items():
        if not 10.5 < run.losses[0] < 11.3:
            raise SystemExit(f"{name}: the loss of the first step is {run.losses[0]}")
    last = [run.losses[-1] for run in runs.values()]
    if max(last) - min(last) > 0.5:
        raise SystemExit(f"the losses are {max(last) - min(last)} apart: {runs}")
