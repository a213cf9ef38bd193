#!/usr/bin/env python3
"""train_bert_ds against HelloDeepSpeed's train_bert_ds.py under Python DeepSpeed:
same machine, identical batches, two ranks a side, bf16, stage 1 with the optimizer
offloaded, in the order A B B A.

usage: train_ds_benchmark.py [--blocks N] [--steps N] [--ranks N] [--dtype D]
                             [--train_bert_ds PATH_OF_HELLODEEPSPEED]

Run from the root of the checkout after `make build data` and `tools/peers.sh full`.
Prints tokens/s of both sides for each block and their ratio, the peak memory of a
rank, and the time from exec of the launcher to the end of the first step. Without
--train_bert_ds the peer is the same model made from transformers; with it, the
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

BIN = Path("build/bin")
DATA = Path("data/encyclopedia/train.txt")
PEERS = Path(os.environ.get("PEERS_ROOT", ".peers")).absolute() / "bin"
BATCH = 8  # of one rank
WARM_UP = 5  # steps that are not counted


def environment(ranks):
    """One thread for each of its cores, on both sides."""
    threads = max(1, (os.cpu_count() or 1) // ranks)
    return dict(
        os.environ, OMP_NUM_THREADS=str(threads), CUDA_VISIBLE_DEVICES="",
        PATH=f"{PEERS}{os.pathsep}{os.environ['PATH']}")


def run_ours(folder, args, steps):
    """The rows of metrics.jsonl, one for each step, and the seconds of the run."""
    out = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(
        [BIN / "deepspeed", "--num_gpus", str(args.ranks), "train_bert_ds",
         "--checkpoint_dir", out, "--dataset", DATA, "--num_iterations", str(steps),
         "--log_every", "1", "--checkpoint_every", str(10 * steps),
         "--dtype", args.dtype],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(args.ranks))
    (path,) = out.glob("*/metrics.jsonl")
    return [row for row in map(json.loads, path.read_text().splitlines())
            if "loss" in row]


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
    return rows[:-1], rows[-1]["peak_memory_bytes"]


def rate(rows, seconds_of):
    """Useful tokens of all ranks per second, after the warm-up."""
    counted = rows[WARM_UP:]
    return (sum(row["tokens"] for row in counted)
            / sum(seconds_of(row) for row in counted))


def first_step(args):
    """Seconds from exec to the end of a run of one step that writes nothing."""
    start = time.perf_counter()
    subprocess.run(
        [BIN / "deepspeed", "--num_gpus", str(args.ranks), "train_bert_ds",
         "--checkpoint_dir", "unused", "--dry_run", "--dataset", DATA], check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(args.ranks))
    return time.perf_counter() - start


def check_losses(ours, peer):
    """Not the same weights, so only: both began at ln(50265) and learn alike."""
    for rows in (ours, peer):
        if not 10.5 < rows[0]["loss"] < 11.3:
            sys.exit(f"the loss of the first step is {rows[0]['loss']}")
    difference = abs(ours[-1]["loss"] - peer[-1]["loss"])
    if difference > 0.5:
        sys.exit(f"the losses are {difference} apart after {len(ours)} steps")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--train_bert_ds")
    args = parser.parse_args()
    if not (PEERS / "deepspeed").exists():
        sys.exit("Python DeepSpeed is not installed (tools/peers.sh full)")
    ratios, firsts, peer_firsts = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.jsonl"
        subprocess.run(
            [BIN / "write_batches", DATA, "data/roberta-base", batches, "--steps",
             str(args.steps), "--batch_size", str(BATCH * args.ranks)], check=True)
        tokens = [len(json.loads(line)["ids"])
                  for line in batches.read_text().splitlines()]
        run_peer(batches, args, 1)
        for block in range(args.blocks):
            result = {}
            for side in ("ours", "peer") if block % 2 == 0 else ("peer", "ours"):
                if side == "ours":
                    rows = run_ours(folder, args, args.steps)
                    seconds = [row["tokens"] / row["tokens_per_second"]
                               if "tokens" in row else n / row["tokens_per_second"]
                               for row, n in zip(rows, tokens)]
                    ours = [dict(row, tokens=n, seconds=s)
                            for row, n, s in zip(rows, tokens, seconds)]
                    memory = rows[-1]["peak_memory_bytes"]
                    firsts.append(first_step(args))
                else:
                    peer, peaks = run_peer(batches, args, args.steps)
                    peer_firsts.append(peer[0]["since_start"])
            check_losses(ours, peer)
            result = [rate(rows, lambda row: row["seconds"]) for rows in (ours, peer)]
            ratios.append(result[0] / result[1])
            print(f"block {block + 1}: ours {result[0]:7.0f} tok/s, "
                  f"peer {result[1]:7.0f} tok/s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"ratio: median {statistics.median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}")
    print(f"peak memory of rank 0: ours {memory / 2**20:.0f} MiB, "
          f"peer {peaks[0] / 2**20:.0f} MiB, ratio {peaks[0] / memory:.1f}")
    print(f"first step after exec: ours {statistics.median(firsts):.2f} s "
          f"(whole process), peer {statistics.median(peer_firsts):.1f} s")


if __name__ == "__main__":
    main()
