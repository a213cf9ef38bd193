#!/usr/bin/env python3
"""Finds what must not be committed: paths of one machine, marks of unfinished
work, large files.

usage: lint_words.py [ROOT]
"""

import pathlib
import re
import sys

import lint_tree

MAX_BYTES = 1_000_000
PATHS = re.compile(r"(?<![\w.])/(work|root|home)/")
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")


def problems_of(root):
    problems = []
    for path in lint_tree.tree_files(root):
        data = (pathlib.Path(root) / path).read_bytes()
        if len(data) > MAX_BYTES:
            problems.append(f"{path}: {len(data)} bytes, at most {MAX_BYTES}")
        if b"\0" in data:
            continue  # binary: test data
        text = data.decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            for what, pattern in (("path of one machine", PATHS),
                                  ("mark of unfinished work", MARKS)):
                match = pattern.search(line)
                if match:
                    problems.append(f"{path}:{number}: {what}: {match.group()}")
    return problems


if __name__ == "__main__":
    sys.exit(lint_tree.finish("words", problems_of(lint_tree.root_argument())))
