#!/usr/bin/env python3
"""All benchmarks, as one table: what `make bench` runs.

usage: bench.py [--quick] [--hello DIR] [--only NAME...] [--readme]

Run from the root of the checkout after `make build data peers`. About 25 minutes on
two cores; --quick makes a few minutes of it, with numbers that mean little. --hello
(or $HELLODEEPSPEED): the folder with HelloDeepSpeed's train_bert.py; without it the
peer is the same model made from transformers. The table goes to build/bench.md, its
rows to build/bench_rows.jsonl. --only takes parts of the list at the end of this
file. --readme runs nothing: it prints the rows of the last run that have an aim,
for README.md.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import bench_rows
from bench_rows import BIN, PEERS, Row

TABLE = Path("build/bench.md")
ROWS = Path("build/bench_rows.jsonl")
THREADS = os.cpu_count()


def google_benchmark(program, *options):
    output = subprocess.run(
        [BIN / program, "--benchmark_format=json", *options], check=True,
        capture_output=True, text=True).stdout
    return json.loads(output)["benchmarks"]


def milliseconds(line):
    return line["real_time"] * {"ns": 1e-6, "us": 1e-3, "ms": 1}[line["time_unit"]]


def kernels(args):
    seconds = "0.05" if args.quick else "1"
    for line in google_benchmark(
            "kernels_benchmark", f"--benchmark_min_time={seconds}"):
        name = line["name"].removesuffix("/manual_time")
        products = name.startswith("attention")
        unit = "GFLOP/s" if products else "GB/s"
        aim = "85%" if name.startswith("adam/bf16") else ""
        yield Row(f"kernel {name.replace('/', ', ')}",
                  f"{milliseconds(line):.2f} ms, {line['rate']:.1f} {unit}",
                  asked=aim,
                  bound=f"{line['share']:.0%} of {line['bound']:.0f} {unit} "
                        f"({'multiply-adds' if products else 'memcpy'})")


def products(args):
    seconds = "0.05" if args.quick else "0.5"
    lines = {}
    for line in google_benchmark(
            "products_benchmark", f"--benchmark_min_time={seconds}",
            f"--benchmark_filter=/{THREADS}/"):
        shape, dtype, maker = line["name"].rsplit("/", 2)[0].rsplit("/", 2)
        lines.setdefault((shape, dtype), {})[maker] = line
    for (shape, dtype), by_maker in lines.items():
        ours, libtorch = by_maker["ours"], by_maker["libtorch"]
        yield Row(f"product {shape}, {dtype}, {THREADS} threads, libtorch",
                  f"{ours['rate']:.0f} GFLOP/s", f"{libtorch['rate']:.0f} GFLOP/s",
                  ours["rate"] / libtorch["rate"],
                  bound=f"{ours['share']:.0%} of {ours['bound']:.0f} GFLOP/s "
                        "(fp32 multiply-adds)")


def data(args):
    for line in google_benchmark("data_benchmark"):
        if "error_message" in line:
            raise RuntimeError(line["error_message"])
        size = line["name"].split("/")[1]
        yield Row(f"data side of a step, batch {size}",
                  f"{milliseconds(line):.3f} ms", asked="1 ms" if size == "8" else "")


def collectives(args):
    output = subprocess.run(
        [BIN / "collectives_benchmark", "2", "32", "5" if args.quick else "25"],
        check=True, capture_output=True, text=True).stdout
    lines = {}
    for line in output.splitlines():
        match = re.match(r"(\w+), (.+?) {2,}([\d.]+) +[\d.]+ +([\d.]+)$", line)
        if match:
            lines[match[1], match[2]] = float(match[3]), float(match[4])
    for name in ("all_reduce", "reduce_scatter", "all_gather"):
        ours, copies = lines[name, "allocate()"]
        gloo, gloo_copies = lines[name, "c10d Gloo"]
        aim = "6, and 3 copies" if name != "all_gather" else ""
        yield Row(f"{name} of 32 MiB bf16, 2 ranks, Gloo", f"{ours:.1f} ms",
                  f"{gloo:.1f} ms", gloo / ours, asked=aim,
                  bound=f"{copies:.1f} copies; Gloo {gloo_copies:.1f}")


def script(name, *options):
    """A comparison in a process of its own, which appends its rows."""
    before = len(bench_rows.read(ROWS)) if ROWS.exists() else 0
    done = subprocess.run(
        [PEERS / "python", f"benchmarks/{name}", *options, "--rows", ROWS],
        stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    rows = bench_rows.read(ROWS)[before:]
    return rows


def tokenizer(args):
    return script("tokenizer_benchmark.py", "--blocks", "1" if args.quick else "3")


def program(args, option, name):
    """The option that names HelloDeepSpeed's own program."""
    if not args.hello:
        return []
    path = Path(args.hello) / name
    if not path.exists():
        raise RuntimeError(f"no {name} in '{args.hello}'")
    return [option, path]


def lengths(args, blocks, steps, warm_up):
    if args.quick:
        blocks, steps = 1, 2 * warm_up
    return ["--blocks", str(blocks), "--steps", str(steps),
            "--warm_up", str(warm_up)]


def train(args):
    return script("train_benchmark.py", "default", "--aa",
                  *lengths(args, 4, 30, 10),
                  *program(args, "--train_bert", "train_bert.py"))


def train_base(args):
    return script("train_benchmark.py", "base", *lengths(args, 2, 3, 1),
                  *["--no_compile"] * args.quick)


def train_ds(args):
    return script("train_ds_benchmark.py", *lengths(args, 3, 15, 4),
                  *program(args, "--train_bert_ds", "train_bert_ds.py"))


# Most wanted first; what needs the Python programs; what it compares.
PARTS = {
    "train": (train, True, "train_bert against HelloDeepSpeed and PyTorch"),
    "train_ds": (train_ds, True, "train_bert_ds against DeepSpeed"),
    "train_base": (train_base, True, "train_bert against transformers"),
    "collectives": (collectives, False, "collectives"),
    "tokenizer": (tokenizer, True, "tokenizer against Hugging Face"),
    "data": (data, False, "data side of a step"),
    "kernels": (kernels, False, "kernels"),
    "products": (products, False, "matrix products against libtorch"),
}


def run_part(name, args):
    function, needs_peers, what = PARTS[name]
    start = time.monotonic()
    print(f"\n===== {name}: {what}", flush=True)
    try:
        if needs_peers and not (PEERS / "python4").exists():
            raise RuntimeError("the Python peers are not installed (make peers)")
        rows = list(function(args))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        rows = [Row(what, peer=f"NOT RUN: {error}")]
    print(f"===== {name}: {len(rows)} rows after {time.monotonic() - start:.0f} s",
          flush=True)
    return rows


def readme():
    if not TABLE.exists():
        sys.exit("no build/bench.md: run make bench first")
    rows = [row for row in bench_rows.read(ROWS) if row.asked or "NOT RUN" in row.peer]
    print(TABLE.read_text().split("\n|")[0] + "\n" + bench_rows.markdown(rows))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hello", default=os.environ.get("HELLODEEPSPEED"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS),
                        default=list(PARTS))
    parser.add_argument("--readme", action="store_true")
    args = parser.parse_args()
    if args.readme:
        return readme()
    start = time.monotonic()
    ROWS.unlink(missing_ok=True)
    machine = bench_rows.machine()
    rows = []
    for name in args.only:
        rows += run_part(name, args)
    ROWS.unlink(missing_ok=True)
    with open(os.devnull, "w") as nothing:
        sys.stdout, screen = nothing, sys.stdout
        bench_rows.finish(rows, ROWS)
        sys.stdout = screen
    minutes = (time.monotonic() - start) / 60
    TABLE.write_text(
        f"{machine}; {minutes:.0f} minutes"
        f"{', --quick: these numbers mean little' if args.quick else ''}. "
        "Ratios are medians over blocks, above 1 where ours is better.\n\n"
        f"{bench_rows.markdown(rows)}\n")
    print(f"\n{TABLE.read_text()}\nwritten to {TABLE}")


if __name__ == "__main__":
    sys.exit(main())
