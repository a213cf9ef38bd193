#!/usr/bin/env python3
"""Checks who includes whom against the arrows of docs/architecture.md.

usage: lint_includes.py [ROOT]

The table is the fenced block marked `arrows` of that page, so the page cannot
drift from the code. Its lines:
    bert -> base, kernels, text/batch.h     a folder may include these
    torch headers: flat, bert               folders that may see tensors
    c10d headers: comm                      folders that may see collectives,
                                            CUDA and NCCL
    file names: checkpoint/layout           files that may spell a file name
    system files: comm/shared_segment       files that may open what lies on no
                                            disk: /proc, /dev, memory
`*` stands for every folder. Tests may include what they like.
"""

import re
import sys

import lint_tree

PAGE = "docs/architecture.md"
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
TORCH = re.compile(r"^(torch|ATen|c10)/")
TORCH_PROXY = "deepspeed/flat/torch_headers.h"
C10D = re.compile(r"^torch/csrc/distributed/|^gloo/|^nccl|^cuda")
# Names that loaders search for: spelled twice, they drift apart. A literal with
# a blank is a sentence for people and may name them.
FILE_NAMES = (
    "checkpoint.iter_", "hparams.json", "model.safetensors", "metrics.jsonl",
    "githash.log", "gitdiff.log")

# What goes through file/file_system.h, so that a test can replace it.
CHANGES_FILES = re.compile(
    r"(?<![\w>])::(creat|fchmod\w*|chmod|fdatasync|flock|fsync|ftruncate|"
    r"link\w*|mkdir\w*|mkdtemp|mkstemp|remove|rename\w*|rmdir|symlink\w*|"
    r"truncate|unlink\w*)\("
    r"|\bstd::(remove|rename)\(|\bstd::(basic_)?o?f(stream|ilebuf)\b|\bfopen\("
    r"|\b(fs|filesystem)::(copy\w*|create_\w+|permissions|remove\w*|rename|"
    r"resize_file)\(|\bSYS_renameat2\b")
OPENS_FILES = re.compile(r"(?<![\w>])::open(at)?\(|\bstd::ifstream\b")


def file_problems(path, text, rules):
    """Files that are opened or changed past the one interface for that."""
    if (folder_of(path) == "file" or path.stem.startswith("test_")
            or "_test" in path.stem):
        return []
    code = lint_tree.without_comments(text, keep_strings=False)
    found = list(CHANGES_FILES.finditer(code))
    if f"{folder_of(path)}/{path.stem}" not in rules["system files"]:
        found += OPENS_FILES.finditer(code)
    return [f"{path}:{code.count(chr(10), 0, match.start()) + 1}: "
            f"{match.group()}: use file/file_system.h" for match in found]


def read_table(page):
    """The arrows {folder: targets} and rules {kind: names} of the page."""
    block = re.search(r"^```arrows\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    if not block:
        raise SystemExit(f"{PAGE}: no ```arrows block")
    arrows, rules = {}, {}
    for line in filter(str.strip, block.group(1).splitlines()):
        match = re.fullmatch(r"\s*(.+?)\s*(->|:)\s*(.*)", line)
        if not match:
            raise SystemExit(f"{PAGE}: cannot read arrow line: {line}")
        names = {name.strip() for name in match.group(3).split(",")} - {""}
        (arrows if match.group(2) == "->" else rules)[match.group(1)] = names
    return arrows, rules


def folder_of(path):
    """`text` for deepspeed/text/bpe.h, `programs` for programs/main.cpp."""
    inside = path.parts[0] == "deepspeed" and len(path.parts) > 2
    return path.parts[1] if inside else path.parts[0]


def include_problem(folder, included, arrows, rules):
    """What is wrong with one include, or None."""
    if C10D.match(included):
        if folder not in rules["c10d headers"]:
            return f"{folder}/ must not see c10d headers"
        return None
    if TORCH.match(included) or included == TORCH_PROXY:
        if folder not in rules["torch headers"]:
            return f"{folder}/ must not see torch headers"
        return None
    if not included.startswith("deepspeed/"):
        return None
    target = included.split("/", 1)[1]
    allowed = arrows[folder] | {folder}
    if "*" in allowed or target in allowed or target.split("/")[0] in allowed:
        return None
    return f"no arrow {folder} -> {target.split('/')[0]} in {PAGE}"


def check_file(path, text, arrows, rules):
    folder = folder_of(path)
    if folder not in arrows:
        return [f"{path}: folder {folder} is not in the arrows of {PAGE}"]
    problems = file_problems(path, text, rules)
    code = lint_tree.without_comments(text)
    for match in INCLUDE.finditer(code):
        problem = include_problem(folder, match.group(1), arrows, rules)
        if problem:
            line = code.count("\n", 0, match.start(1)) + 1
            problems.append(f"{path}:{line}: {match.group(1)}: {problem}")
    if f"{folder}/{path.stem}" not in rules["file names"]:
        for line, literal in lint_tree.string_literals(text):
            for name in FILE_NAMES:
                if name in literal and " " not in literal:
                    problems.append(
                        f"{path}:{line}: spells \"{name}\": use checkpoint/layout.h")
    return problems


def problems_of(root):
    arrows, rules = read_table(lint_tree.read(root, PAGE))
    problems = []
    for path in lint_tree.tree_files(root):
        if (path.suffix in lint_tree.CPP and not lint_tree.is_test(path)
                and path.parts[0] in ("deepspeed", "programs")):
            problems += check_file(
                path, lint_tree.read(root, path), arrows, rules)
    return problems


if __name__ == "__main__":
    sys.exit(lint_tree.finish(
        "includes", problems_of(lint_tree.root_argument())))
