#!/usr/bin/env python3
"""train_bert_ds against HelloDeepSpeed's train_bert_ds.py under Python DeepSpeed:
same machine, identical batches, two ranks a side, bf16, stage 1 with the optimizer
offloaded, in the order A B B A.

usage: train_ds_benchmark.py [--blocks N] [--steps N] [--warm_up N] [--ranks N]
           [--dtype D] [--train_bert_ds PATH_OF_HELLODEEPSPEED] [--rows FILE]

Run from the root of the checkout after `make build data` and `tools/peers.sh full`.
Prints tokens/s of both sides for each block and a Markdown table: their ratio, the
peak memory of a rank, and the time from exec of the launcher to the end of the first
step. --rows appends the rows to a file for `make bench`. Without --train_bert_ds the peer is the same model made from transformers; with it, the
unchanged program makes it. DeepSpeed compiles its operators when they run for the
first time: a run that is not counted comes first.
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

BATCH = 8  # of one rank


def environment(ranks):
    """One thread for each of its cores, on both sides."""
    threads = max(1, (os.cpu_count() or 1) // ranks)
    return dict(
        os.environ, OMP_NUM_THREADS=str(threads), CUDA_VISIBLE_DEVICES="",
        PATH=f"{PEERS}{os.pathsep}{os.environ['PATH']}")


def run_ours(folder, args, batches):
    out = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(
        [BIN / "deepspeed", "--num_gpus", str(args.ranks), "train_bert_ds",
         "--checkpoint_dir", out, "--dataset", DATA, "--num_iterations",
         str(args.steps), "--log_every", "1", "--dtype", args.dtype],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(args.ranks))
    (path,) = out.glob("*/metrics.jsonl")
    rows = [row for row in map(json.loads, path.read_text().splitlines())
            if "loss" in row]
    for row, batch in zip(rows, batches, strict=True):
        row["tokens"] = len(batch["ids"])
        row["seconds"] = row["tokens"] / row["tokens_per_second"]
    return result(args, rows, rows[-1]["peak_memory_bytes"], first_step(args))


def result(args, rows, memory, first):
    """Useful tokens of all ranks, after the warm-up."""
    counted = rows[args.warm_up:]
    rate = (sum(row["tokens"] for row in counted)
            / sum(row["seconds"] for row in counted))
    return Run(rate, memory, [row["loss"] for row in rows], first)


def run_peer(batches, args, steps):
    command = [
        PEERS / "python4", PEERS / "deepspeed", "--num_gpus", str(args.ranks),
        "tests/parity/deepspeed_hello_peer.py", batches, "--steps", str(steps),
        "--batch_size", str(BATCH), "--dtype", args.dtype,
        "--started", str(time.time())]
    if args.train_bert_ds:
        command += ["--program", args.train_bert_ds]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(args.ranks))
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])
    rows = [json.loads(line) for line in done.stdout.splitlines()
            if line.startswith('{"')]
    steps = rows[:-1]
    if len(steps) <= args.warm_up:  # a run that compiles, not one that counts
        return None
    return result(args, steps, rows[-1]["peak_memory_bytes"][0],
                  steps[0]["since_start"])


def first_step(args):
    """Seconds from exec to the end of a run of one step that writes nothing."""
    start = time.perf_counter()
    subprocess.run(
        [BIN / "deepspeed", "--num_gpus", str(args.ranks), "train_bert_ds",
         "--checkpoint_dir", "unused", "--dry_run", "--dataset", DATA], check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(args.ranks))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--warm_up", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--train_bert_ds")
    parser.add_argument("--rows")
    args = parser.parse_args()
    if not 0 < args.warm_up < args.steps:
        parser.error("--warm_up must be at least 1 and less than --steps")
    if not (PEERS / "deepspeed").exists():
        sys.exit("Python DeepSpeed is not installed (tools/peers.sh full)")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batches.jsonl"
        batches = bench_rows.write_batches(
            file, args.steps, BATCH, ranks=args.ranks)
        run_peer(file, args, 1)
        results = bench_rows.in_blocks(
            {"ours": lambda: run_ours(folder, args, batches),
             "peer": lambda: run_peer(file, args, args.steps)}, args.blocks)
        peak = bench_rows.product_peak(os.cpu_count())[args.dtype]
    bench_rows.check_losses(results)
    bench_rows.finish(table(args, results, batches, peak), args.rows)


def table(args, results, batches, peak):
    flops = sum(bench_rows.useful_flops(batch, [6, 8, 512, 256])
                for batch in batches)
    bound = peak * sum(len(batch["ids"]) for batch in batches) / flops

    def row(name, field, text, asked, share="", lower=True):
        ours, peer = ([getattr(run, field) for run in results[side]]
                      for side in ("ours", "peer"))
        if not lower:
            share = (f"{statistics.median(ours) / bound:.0%} of {bound:,.0f} tok/s "
                     "(products)")
        return bench_rows.compare(name, ours, peer, text, asked, share, lower)

    what = f"{args.ranks} ranks, {args.dtype}, stage 1, offload, DeepSpeed"
    return [
        row(f"train_bert_ds, {what}", "rate", lambda v: f"{v:,.0f} tok/s", "8",
            lower=False),
        row(f"peak memory of rank 0, {what}", "memory",
            lambda v: f"{v / 2**20:,.0f} MiB", "4"),
        row(f"first step after exec, {what}", "first_step", lambda v: f"{v:.1f} s",
            "3 s"),
    ]


if __name__ == "__main__":
    main()
