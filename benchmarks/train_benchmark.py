#!/usr/bin/env python3
"""train_bert against PyTorch: same machine, identical batches from a file, one
process a side, in the order A B B A.

usage: train_benchmark.py [default|base] [--blocks N] [--steps N] [--warm_up N]
           [--dtypes fp32 bf16] [--threads N] [--no_compile] [--aa]
           [--train_bert PATH_OF_HELLODEEPSPEED] [--rows FILE]

Run from the root of the checkout after `make build data peers`.

default  the default model against HelloDeepSpeed's train_bert.py (fp32, as it is;
         the same model made from transformers without --train_bert), and against
         PyTorch with our tricks: unpadded, head on masked rows, fused Adam
base     the shape of BERT-base against RobertaForMaskedLM of transformers

The last two run eager or under torch.compile, whichever a trial found faster. --aa
runs ours a second time as its own peer: the spread of that row is the noise. Prints
a Markdown table; tokens are useful ones, without padding. --rows appends the rows
to a file for `make bench`.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_rows
from bench_rows import BIN, DATA, PEERS, Run

SHAPES = {"default": [6, 8, 512, 256], "base": [12, 12, 3072, 768]}
TRIAL_STEPS = 3  # the last one counts
BATCH_SIZE = 8
OURS = 3  # processes of ours for one of a peer
# Steps between two lines of our log: 10, as by default, where steps are short.
# The norm of the gradient is computed for such a line only.
LOG_EVERY = {"default": 10, "base": 1}


class Comparison:
    def __init__(self, args, folder):
        self.args = args
        self.folder = folder
        self.shape = SHAPES[args.shape]
        self.log_every = LOG_EVERY[args.shape]
        self.batches_file = Path(folder) / "batches.jsonl"
        self.batches = bench_rows.write_batches(
            self.batches_file, args.steps, BATCH_SIZE)

    def rate(self, rows, steps_in_row=1):
        rows = rows[self.args.warm_up // steps_in_row:]
        return (sum(row["tokens"] for row in rows)
                / sum(row["seconds"] for row in rows))

    def environment(self):
        return dict(os.environ, OMP_NUM_THREADS=str(self.args.threads),
                    CUDA_VISIBLE_DEVICES="")

    def ours_command(self, dtype):
        layers, heads, ff, hidden = map(str, self.shape)
        return [
            BIN / "train_bert", "--dataset", DATA, "--dtype", dtype,
            "--num_layers", layers, "--num_heads", heads, "--ff_dim", ff,
            "--h_dim", hidden, "--batch_size", str(BATCH_SIZE),
            "--num_threads", str(self.args.threads)]

    def ours(self, dtype):
        """Of several processes: one is over in a fraction of the peer's time."""
        runs = [self.ours_once(dtype) for _ in range(OURS)]
        return Run(statistics.harmonic_mean([run.rate for run in runs]),
                   max(run.memory for run in runs), runs[0].losses,
                   self.ours_first_step(dtype))

    def ours_once(self, dtype):
        out = Path(tempfile.mkdtemp(dir=self.folder))
        steps = str(self.args.steps)
        # No checkpoint but the last, which is not timed.
        subprocess.run(
            [*self.ours_command(dtype), "--checkpoint_dir", out,
             "--num_iterations", steps, "--log_every", str(self.log_every)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.environment())
        (path,) = out.glob("*/metrics.jsonl")
        rows = [row for row in map(json.loads, path.read_text().splitlines())
                if "loss" in row]
        for path in out.glob("*/checkpoint*"):
            path.unlink()
        for row in rows:
            batches = self.batches[row["step"] - self.log_every:row["step"]]
            row["tokens"] = sum(len(batch["ids"]) for batch in batches)
            row["seconds"] = row["tokens"] / row["tokens_per_second"]
        return Run(self.rate(rows, self.log_every), rows[-1]["peak_memory_bytes"],
                   [row["loss"] for row in rows])

    def ours_first_step(self, dtype):
        """Of a whole process that makes one step and writes nothing."""
        start = time.perf_counter()
        subprocess.run(
            [*self.ours_command(dtype), "--checkpoint_dir", "unused", "--dry_run"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.environment())
        return time.perf_counter() - start

    def peer_rows(self, options, steps):
        # transformers 4 ties HelloDeepSpeed's head as the program needs it.
        python = PEERS / ("python" if "transformers" in options else "python4")
        done = subprocess.run(
            [python, "benchmarks/peer_train.py", self.batches_file,
             "--steps", str(steps), "--threads", str(self.args.threads),
             "--shape", *map(str, self.shape), *options],
            capture_output=True, text=True, env=self.environment())
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-2000:])
        # Imports of the program may print lines of their own.
        return [json.loads(line) for line in done.stdout.splitlines()
                if line.startswith('{"step"')]

    def peer(self, options):
        rows = self.peer_rows(options, self.args.steps)
        return Run(self.rate(rows), rows[-1]["peak_memory_bytes"],
                   [row["loss"] for row in rows], rows[0]["since_start"])

    def best_of_eager_and_compiled(self, options):
        """The options of the faster one, and its name."""
        if self.args.no_compile:
            return options, "eager"
        seconds = {}
        for name, more in (("eager", []), ("torch.compile", ["--compile"])):
            try:
                rows = self.peer_rows([*options, *more], TRIAL_STEPS)
            except RuntimeError as error:
                if name == "eager":
                    raise
                print("torch.compile: NOT COMPARED, it fails here (it needs a C++ "
                      f"compiler): {str(error).splitlines()[-1]}", flush=True)
                return options, "eager"
            seconds[name] = sum(row["seconds"] for row in rows[-1:])
        best = min(seconds, key=seconds.get)
        print(f"trial of {' '.join(options)}: " + ", ".join(
            f"{name} {value:.2f} s a step" for name, value in seconds.items()),
            flush=True)
        return options + ["--compile"] * (best != "eager"), best

    def sides(self):
        """Name and function of each side; names of the peers by dtype."""
        args = self.args
        sides = {f"ours {dtype}": lambda dtype=dtype: self.ours(dtype)
                 for dtype in args.dtypes}
        if args.aa:
            sides["ours again"] = lambda: self.ours(args.dtypes[0])
        if args.shape == "default":
            program = ["--train_bert", args.train_bert] if args.train_bert else []
            sides["hello"] = lambda: self.peer(["--model", "hello", *program])
        model = "packed" if args.shape == "default" else "transformers"
        tuned = {}
        for dtype in args.dtypes:
            options, mode = self.best_of_eager_and_compiled(
                ["--model", model, "--dtype", dtype])
            tuned[dtype] = f"{model} {dtype}, {mode}"
            sides[tuned[dtype]] = lambda options=options: self.peer(options)
        return sides, tuned


def tokens_per_second(value):
    return f"{value:,.0f} tok/s"


def mebibytes(value):
    return f"{value / 2**20:,.0f} MiB"


def seconds(value):
    return f"{value:.1f} s"


def table(comparison, results, tuned, peak):
    args = comparison.args
    flops = sum(bench_rows.useful_flops(batch, comparison.shape)
                for batch in comparison.batches)
    tokens = sum(len(batch["ids"]) for batch in comparison.batches)
    bound = {dtype: peak[dtype] * tokens / flops for dtype in peak}

    def rates(name):
        return [run.rate for run in results[name]]

    def row(name, dtype, peer, asked):
        ours = rates(f"ours {dtype}")
        share = statistics.median(ours) / bound[dtype]
        return bench_rows.compare(
            name, ours, rates(peer), tokens_per_second, asked,
            f"{share:.0%} of {bound[dtype]:,.0f} tok/s (products)")

    rows = []
    if args.aa:
        rows.append(row(f"noise: train_bert {args.dtypes[0]} against itself",
                        args.dtypes[0], "ours again", ""))
    if args.shape == "default":
        hello = ("HelloDeepSpeed train_bert.py" if args.train_bert
                 else "HelloDeepSpeed's model")
        for dtype in args.dtypes:
            rows.append(row(f"train_bert {dtype}, {hello} fp32", dtype, "hello",
                            "7" if dtype == "fp32" else "13"))
        for name, unit, asked in (("memory", mebibytes, "4"),
                                  ("first_step", seconds, "2 s")):
            rows.append(bench_rows.compare(
                f"{'peak memory' if name == 'memory' else 'first step after exec'}, "
                f"train_bert {args.dtypes[0]}, {hello}",
                *([getattr(run, name) for run in results[side]]
                  for side in (f"ours {args.dtypes[0]}", "hello")),
                unit, asked, lower_is_better=True))
    for dtype, peer in tuned.items():
        what = ("PyTorch with the same tricks" if args.shape == "default"
                else "RobertaForMaskedLM, BERT-base shape")
        rows.append(row(f"train_bert {dtype}, {what} ({peer.split(' ', 1)[1]})",
                        dtype, peer, "2" if args.shape == "default" else "3"))
    return rows


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", nargs="?", default="default", choices=list(SHAPES))
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm_up", type=int, default=10)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"],
                        choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no_compile", action="store_true")
    parser.add_argument("--aa", action="store_true")
    parser.add_argument("--train_bert")
    parser.add_argument("--rows")
    args = parser.parse_args()
    if args.warm_up >= args.steps:
        parser.error("--warm_up must be less than --steps")
    every = LOG_EVERY[args.shape]
    if args.warm_up % every or args.steps % every:
        parser.error(f"--warm_up and --steps must be multiples of {every}")
    return args


def main():
    args = parse()
    if not (PEERS / "python4").exists():
        sys.exit("the Python peers are not installed (make peers)")
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(args, folder)
        sides, tuned = comparison.sides()
        results = bench_rows.in_blocks(sides, args.blocks)
        peak = bench_rows.product_peak(args.threads)
    bench_rows.check_losses(results)
    bench_rows.finish(table(comparison, results, tuned, peak), args.rows)


if __name__ == "__main__":
    main()
