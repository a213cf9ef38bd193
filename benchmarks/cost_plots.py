#!/usr/bin/env python3
"""Shapes of cost: tokens/s of train_bert against threads, ranks, sequence length,
model size and batch, each beside a computed bound.

usage: cost_plots.py [--quick] [--steps N] [--dtypes fp32 bf16] [--only NAME...]
           [--out DIR]

Run from the root of the checkout after `make build data`, on a machine that does
nothing else; half an hour on two cores. Writes cost_NAME.svg for each sweep and all
numbers as cost.csv to DIR (default docs). The bound is what the useful operations
of a step take at the speed of libtorch's product of square matrices, which is
measured before each sweep. --quick: three steps and the small half of each sweep.
"""
import argparse
import csv
import dataclasses
import io
import json
import os
import subprocess
import tempfile
from pathlib import Path

import bench_rows
from bench_rows import BIN, DATA

CORES = os.cpu_count()
MODELS = {  # millions of parameters: layers, heads, ff, hidden
    16: [6, 8, 512, 256],
    45: [6, 8, 2048, 512],
    124: [12, 12, 3072, 768],
    355: [24, 16, 4096, 1024],
}
DEFAULT = MODELS[16]
LONG_TOKENS = 1024  # of a batch of the sweep over the sequence length
LONG_LINE = 4000  # characters: more than 510 tokens


@dataclasses.dataclass
class Point:
    x: int
    threads: int = CORES
    ranks: int = 0  # 0: train_bert
    shape: tuple = tuple(DEFAULT)
    batch_size: int = 8
    max_seq_length: int = 512
    text: Path = DATA


@dataclasses.dataclass
class Sweep:
    title: str
    x_label: str
    points: list


def up_to_cores():
    return [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= CORES]


def sweeps(long_text):
    return {
        "threads": Sweep("One process", "threads", [
            Point(n, threads=n) for n in up_to_cores()]),
        "ranks": Sweep("train_bert_ds, stage 1, all cores", "ranks", [
            Point(n, ranks=n) for n in up_to_cores()]),
        "length": Sweep(
            f"Sequences of one length, {LONG_TOKENS} tokens a batch", "tokens", [
                Point(n, batch_size=LONG_TOKENS // n, max_seq_length=n,
                      text=long_text) for n in (32, 64, 128, 256, 512)]),
        "model": Sweep("Model size", "million parameters", [
            Point(n, shape=tuple(shape)) for n, shape in MODELS.items()]),
        "batch": Sweep("Batch", "lines", [
            Point(n, batch_size=n) for n in (1, 2, 4, 8, 16, 32, 64)]),
    }


def write_long_lines(path):
    """The corpus with its lines joined until they fill a sequence."""
    with open(DATA, encoding="utf8") as text, open(path, "w") as out:
        line = ""
        for part in text:
            line += part.rstrip("\n") + " "
            if len(line) >= LONG_LINE:
                out.write(line.strip() + "\n")
                line = ""


def command(point, dtype, steps):
    layers, heads, ff, hidden = map(str, point.shape)
    ranks = max(1, point.ranks)
    threads = max(1, point.threads // ranks)
    start = ([BIN / "deepspeed", "--num_gpus", str(ranks), "train_bert_ds"]
             if point.ranks else [BIN / "train_bert"])
    return [*start, "--dataset", point.text, "--dtype", dtype,
            "--num_layers", layers, "--num_heads", heads, "--ff_dim", ff,
            "--h_dim", hidden, "--batch_size", str(point.batch_size),
            "--max_seq_length", str(point.max_seq_length),
            "--num_threads", str(threads), "--num_iterations", str(steps),
            "--log_every", "1"], threads


def measure(point, dtype, steps, warm_up, peak):
    """Tokens/s, and the bound in tokens/s."""
    with tempfile.TemporaryDirectory() as folder:
        batches = bench_rows.write_batches(
            Path(folder) / "batches.jsonl", steps,
            point.batch_size * max(1, point.ranks), point.text,
            point.max_seq_length)
        line, threads = command(point, dtype, steps)
        subprocess.run(
            [*line, "--checkpoint_dir", Path(folder) / "out"], check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
        (path,) = Path(folder).glob("out/*/metrics.jsonl")
        rows = [row for row in map(json.loads, path.read_text().splitlines())
                if "loss" in row]
    counted = [(len(batch["ids"]), row["tokens_per_second"])
               for batch, row in zip(batches, rows, strict=True)][warm_up:]
    rate = sum(n for n, _ in counted) / sum(n / speed for n, speed in counted)
    flops = sum(bench_rows.useful_flops(batch, point.shape) for batch in batches)
    tokens = sum(len(batch["ids"]) for batch in batches)
    return rate, peak[dtype] * tokens / flops


def draw(name, sweep, dtypes, values, out):
    """values: (x, dtype) to tokens/s and bound."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([sweep.x_label] + [
        label for dtype in dtypes for label in (dtype, f"{dtype} bound")])
    for point in sweep.points:
        writer.writerow([point.x] + [
            f"{value:.0f}" for dtype in dtypes for value in values[point.x, dtype]])
    subprocess.run(
        [BIN / "draw_plot", sweep.title, sweep.x_label, "tokens/s",
         out / f"cost_{name}.svg"], input=table.getvalue(), text=True, check=True)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm_up", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--only", nargs="+",
                        choices=["threads", "ranks", "length", "model", "batch"])
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    if args.quick:
        args.steps, args.warm_up = 3, 1
    return args


def main():
    args = parse()
    numbers = []
    with tempfile.TemporaryDirectory() as folder:
        long_text = Path(folder) / "long_lines.txt"
        write_long_lines(long_text)
        for name, sweep in sweeps(long_text).items():
            if args.only and name not in args.only:
                continue
            if args.quick:
                sweep.points = sweep.points[:max(2, len(sweep.points) // 2)]
            peaks = {n: bench_rows.product_peak(n)
                     for n in {point.threads for point in sweep.points}}
            values = {}
            for point in sweep.points:
                for dtype in args.dtypes:
                    rate, bound = values[point.x, dtype] = measure(
                        point, dtype, args.steps, args.warm_up, peaks[point.threads])
                    numbers.append([name, point.x, dtype, f"{rate:.0f}",
                                    f"{bound:.0f}", f"{rate / bound:.2f}"])
                    print(f"{name} {point.x}, {dtype}: {rate:,.0f} tokens/s, "
                          f"{rate / bound:.0%} of the bound", flush=True)
            draw(name, sweep, args.dtypes, values, args.out)
    with open(args.out / "cost.csv", "w", encoding="utf8") as file:
        file.write(f"# {bench_rows.machine()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sweep", "x", "dtype", "tokens_per_second", "bound", "share"])
        writer.writerows(numbers)


if __name__ == "__main__":
    main()
