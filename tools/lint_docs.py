#!/usr/bin/env python3
"""Checks that the pages agree with the tree: links lead somewhere, and every
flag and every exit code is explained.

usage: lint_docs.py [ROOT]
"""

import pathlib
import re
import sys

import lint_tree

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# Where names are made, how, and the page that explains them as `name` or | n |.
EXPLAINED = (
    ("deepspeed/settings/settings.cpp", r'\{"(\w+)",\s+k[A-Z]', "docs/training.md",
     r"`{}`"),
    ("deepspeed/base/error.h", r"^  \w+ = (\d+),", "docs/errors.md",
     r"^\| {} \|"),
)


def link_problems(root):
    for path in lint_tree.tree_files(root):
        if path.suffix != ".md":
            continue
        for number, line in enumerate(
                lint_tree.read(root, path).splitlines(), 1):
            for link in LINK.findall(line):
                if (not re.match(r"\w+:", link)
                        and not (pathlib.Path(root) / path.parent / link).exists()):
                    yield f"{path}:{number}: link to nothing: {link}"


def name_problems(root):
    files = {str(path) for path in lint_tree.tree_files(root)}
    for source, pattern, page, form in EXPLAINED:
        if source not in files:
            continue
        text = lint_tree.read(root, page)
        for name in re.findall(pattern, lint_tree.read(root, source), re.M):
            if not re.search(form.format(name), text, re.M):
                yield f"{page}: says nothing about {name} of {source}"


def problems_of(root):
    return [*link_problems(root), *name_problems(root)]


if __name__ == "__main__":
    sys.exit(lint_tree.finish("docs", problems_of(lint_tree.root_argument())))
