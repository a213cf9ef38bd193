#!/usr/bin/env python3
"""No kernel, and not the tokenizer, needs more instructions than it did.

usage: instruction_test.py BUILD_FOLDER [--update]

Times on shared machines say nothing; valgrind's callgrind counts the instructions of
each kernel (of AVX2, which valgrind knows) and of encoding a fixed text. A count that
is more than 5 % above the one in golden/instruction_counts.json fails; so does one
that is more than 5 % below, so that a gain is kept: --update writes the counts anew,
and the commit says why. Exit code 77, a skip, without valgrind.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = ROOT / "tests" / "golden" / "instruction_counts.json"
TOLERANCE = 0.05
SKIPPED = 77
FUNCTION = "ds_counted"  # of benchmarks/bounds.h


def counts_of(*command):
    """The output of a program, and the instructions of each call of FUNCTION."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--toggle-collect={FUNCTION}",
             f"--dump-after={FUNCTION}", f"--callgrind-out-file={folder}/out",
             *command], capture_output=True, text=True,
            env=dict(os.environ, DS_CPU_ISA="avx2"))
        if done.returncode != 0:
            sys.exit(f"{command[0]} failed under valgrind:\n{done.stderr[-2000:]}")
        dumps = sorted(pathlib.Path(folder).glob("out.*"),
                       key=lambda path: int(path.suffix[1:]))
        texts = [path.read_text() for path in dumps]
    # The last one is the rest of the program, which is not counted.
    return done.stdout, [int(re.search(r"^totals: (\d+)", text, re.M)[1])
                         for text in texts if f"--dump-after={FUNCTION}" in text]


def measure(build):
    names, counts = counts_of(build / "bin" / "kernels_benchmark", "--count")
    result = dict(zip(names.splitlines(), counts, strict=True))
    # A text that never changes.
    _, (result["tokenizer"],) = counts_of(
        build / "bin" / "tokenizer_speed", ROOT / "data" / "roberta-base",
        ROOT / "LICENSE")
    return result


def problems_of(expected, counts):
    for name in sorted(expected.keys() | counts.keys()):
        if name not in counts or name not in expected:
            yield f"{name}: only in {'the file' if name in expected else 'the program'}"
            continue
        change = counts[name] / expected[name] - 1
        print(f"{name}: {counts[name]:,} instructions, {change:+.1%}")
        if abs(change) > TOLERANCE:
            yield (f"{name}: {counts[name]:,} instructions in place of "
                   f"{expected[name]:,}, {change:+.1%}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        print("NOT RUN: valgrind is missing (tools/setup.sh --with-valgrind)")
        return SKIPPED
    counts = measure(args.build)
    if args.update:
        COUNTS.write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    problems = list(problems_of(json.loads(COUNTS.read_text()), counts))
    if problems:
        print("\n".join(["", *problems]))
        print("on purpose? tests/instruction_test.py build --update, and say why")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
