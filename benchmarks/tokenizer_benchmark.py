#!/usr/bin/env python3
"""Speed of the tokenizer against Hugging Face's, one thread each.

usage: PEERS_PYTHON benchmarks/tokenizer_benchmark.py [--blocks 5] [--bin DIR]
           [--tokenizer DIR] [--text FILE] [--rows FILE]

First the ids of all lines are compared. Then each block runs ours, theirs,
theirs, ours (ABBA), so that a machine that becomes slower meets both alike.
Ours is a new process each time, with nothing remembered; theirs is a new
Tokenizer in this process, called with all lines in one encode_batch_fast, its
fastest call. Both sides count processor time, since the wall clock of a shared
machine measures the others, and neither counts loading.
"""
import argparse
import os
import statistics
import subprocess
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402
import transformers  # noqa: E402

import bench_rows  # noqa: E402
from tokenizers import AddedToken  # noqa: E402


def make_peer(folder):
    files = [os.path.join(folder, name) for name in ("vocab.json", "merges.txt")]
    mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
    peer = transformers.RobertaTokenizerFast(*files, mask_token=mask)
    return peer.backend_tokenizer.to_str()


def run_peer(description, lines):
    tokenizer = tokenizers.Tokenizer.from_str(description)
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    started = time.process_time()
    encode(lines, add_special_tokens=False)
    return time.process_time() - started


def check_same_ids(description, lines, arguments):
    tokenizer = tokenizers.Tokenizer.from_str(description)
    program = os.path.join(arguments.bin, "tokenize")
    with open(arguments.text, "rb") as file:
        command = [program, "--tokenizer", arguments.tokenizer]
        output = subprocess.run(command, stdin=file, stdout=subprocess.PIPE, check=True).stdout
    mine = output.decode().splitlines()
    assert len(mine) == len(lines), (len(mine), len(lines))
    for begin in range(0, len(lines), 5000):
        block = tokenizer.encode_batch(lines[begin : begin + 5000])
        for number, encoding in enumerate(block, begin):
            theirs = " ".join(map(str, encoding.ids))
            assert mine[number] == theirs, f"line {number + 1}: {lines[number]!r}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--tokenizer", default="data/roberta-base")
    parser.add_argument("--text", default="data/encyclopedia/train.txt")
    parser.add_argument("--rows")
    arguments = parser.parse_args()

    with open(arguments.text, encoding="utf-8", newline="\n") as file:
        lines = file.read().removesuffix("\n").split("\n")
    megabytes = os.path.getsize(arguments.text) / 1e6
    description = make_peer(arguments.tokenizer)
    check_same_ids(description, lines, arguments)
    print(f"{len(lines)} lines, {megabytes:.1f} MB: ids are identical to "
          f"tokenizers {tokenizers.__version__}")

    speed = [os.path.join(arguments.bin, "tokenizer_speed"), arguments.tokenizer, arguments.text]
    ours, theirs, ratios, loads = [], [], [], []
    for block in range(arguments.blocks):
        seconds = {"ours": [], "theirs": []}
        for side in ("ours", "theirs", "theirs", "ours"):
            if side == "theirs":
                seconds[side].append(run_peer(description, lines))
            else:
                load, encode, _ = subprocess.check_output(speed).split()
                loads.append(1e3 * float(load))
                seconds[side].append(float(encode))
        mine, other = (megabytes * 2 / sum(seconds[s]) for s in ("ours", "theirs"))
        ours.append(mine)
        theirs.append(other)
        ratios.append(mine / other)
        print(f"block {block + 1}: ours {mine:6.1f} MB/s, theirs {other:5.2f} MB/s, "
              f"ratio {mine / other:.1f}", flush=True)
    print(f"ours, load: median {statistics.median(loads):.0f} ms")
    bench_rows.finish([bench_rows.compare(
        "tokenizer, one thread, cold, Hugging Face tokenizers", ours, theirs,
        lambda value: f"{value:.1f} MB/s", "10, and 40 MB/s")], arguments.rows)


if __name__ == "__main__":
    main()
