#!/usr/bin/env python3
"""train_bert against HelloDeepSpeed's loop in PyTorch: same machine, identical
batches, one process a side, in the order A B B A.

usage: train_benchmark.py [--blocks N] [--steps N] [--dtype fp32|bf16]
                          [--train_bert PATH_OF_HELLODEEPSPEED]

Run from the root of the checkout after `make build data peers`. Prints tokens/s
of both sides for each block, their ratio, peak memory, and the time from exec
to the end of the first step with a warm cache. Without --train_bert the peer is
the same model made from transformers; with it, the unchanged train_bert.py.
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
WARM_UP = 5  # steps that are not counted


def peer_python():
    root = Path(os.environ.get("PEERS_ROOT", ".peers"))
    return root / "bin" / "python4"


def run_ours(folder, steps, dtype):
    """The rows of metrics.jsonl, one for each step."""
    out = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(
        [BIN / "train_bert", "--checkpoint_dir", out, "--dataset", DATA,
         "--num_iterations", str(steps), "--log_every", "1",
         "--checkpoint_every", str(10 * steps), "--dtype", dtype],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = next(out.glob("*/metrics.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def run_peer(batches, steps, train_bert):
    command = [peer_python(), "benchmarks/peer_train.py", batches,
               "--steps", str(steps)]
    if train_bert:
        command += ["--train_bert", train_bert]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    # Imports of the program may print lines of their own.
    return [json.loads(line) for line in output.stdout.splitlines()
            if line.startswith('{"step"')]


def rate(rows, seconds_of):
    """Useful tokens per second after the warm-up."""
    counted = rows[WARM_UP:]
    return (sum(row["tokens"] for row in counted)
            / sum(seconds_of(row) for row in counted))


def first_step():
    """Seconds from exec to the end of a run of one step that writes nothing."""
    start = time.perf_counter()
    subprocess.run(
        [BIN / "train_bert", "--checkpoint_dir", "unused", "--dry_run",
         "--dataset", DATA], check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--train_bert")
    args = parser.parse_args()
    if not peer_python().exists():
        sys.exit("the Python peers are not installed (make peers)")
    ratios, firsts = [], []
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.jsonl"
        subprocess.run([BIN / "write_batches", DATA, "data/roberta-base",
                        batches, "--steps", str(args.steps)], check=True)
        tokens = [len(json.loads(line)["ids"])
                  for line in batches.read_text().splitlines()]
        for block in range(args.blocks):
            sides = ["ours", "peer"] if block % 2 == 0 else ["peer", "ours"]
            result = {}
            for side in sides:
                if side == "ours":
                    rows = run_ours(folder, args.steps, args.dtype)
                    rows = [dict(row, tokens=n) for row, n in zip(rows, tokens)
                            if "loss" in row]
                    ours = rate(rows, lambda row: row["tokens"]
                                / row["tokens_per_second"])
                    result["ours"] = ours, rows[-1]["peak_memory_bytes"]
                    firsts.append(first_step())
                else:
                    rows = run_peer(batches, args.steps, args.train_bert)
                    peer = rate(rows, lambda row: row["seconds"])
                    result["peer"] = peer, rows[-1]["peak_memory_bytes"]
                    peer_first = rows[0]["since_start"]
            ratio = result["ours"][0] / result["peer"][0]
            ratios.append(ratio)
            print(f"block {block + 1}: ours {result['ours'][0]:7.0f} tok/s, "
                  f"peer {result['peer'][0]:7.0f} tok/s, ratio {ratio:.2f}",
                  flush=True)
    memory = [result[side][1] / 2**20 for side in ("ours", "peer")]
    print(f"ratio: median {statistics.median(ratios):.2f}, "
          f"{min(ratios):.2f} to {max(ratios):.2f}")
    print(f"peak memory: ours {memory[0]:.0f} MiB, peer {memory[1]:.0f} MiB, "
          f"ratio {memory[1] / memory[0]:.1f}")
    print(f"first step after exec: ours {statistics.median(firsts):.2f} s "
          f"(whole process), peer {peer_first:.1f} s")


if __name__ == "__main__":
    main()
