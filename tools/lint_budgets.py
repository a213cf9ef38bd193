#!/usr/bin/env python3
"""Checks the size budgets of CONTRIBUTING.md.

usage: lint_budgets.py [ROOT]

Relies on the layout that clang-format gives: the brace of a body follows a
space, the brace of an initializer does not.
"""

import re
import sys

import lint_tree

MAX_SOURCE, MAX_HEADER, MAX_TEST = 500, 200, 800
MAX_FUNCTION, MAX_ARGUMENTS, MAX_MEMBERS, MAX_DEPTH = 60, 5, 28, 2
SCRIPTS = {".py", ".sh"}
SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
CLASS = re.compile(
    r"^[ \t]*(?:class|struct)\s+(?:alignas\([^)]*\)\s*)?(\w+)[^;{}()]*\{",
    re.MULTILINE)
PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
LABEL = re.compile(r"\b(public|protected|private)\s*:")
TEMPLATE = re.compile(r"<[^<>]*>")
NO_FIELD = re.compile(
    r"\s*(using|typedef|friend|static|enum|class|struct|union|template)\b")


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def matching_brace(code, start):
    """The offset of the brace that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def functions(code):
    """(name, first line, number of lines) of each function outside others."""
    offset, head = 0, 0
    while offset < len(code):
        char = code[offset]
        if char in ";}":
            head = offset + 1
        elif char == "{":
            text = code[head:offset]
            is_scope = SCOPE.search(text.split("(")[0]) and not re.search(
                r"\)\s*(const|noexcept|override|final|\s)*$", text)
            if is_scope:
                head = offset + 1
            else:
                end = matching_brace(code, offset)
                if code[offset - 1].isspace() and "(" in text:
                    start = head + len(text) - len(text.lstrip())
                    first, last = line_of(code, start), line_of(code, end)
                    name = re.search(r"([\w:~]+|operator\S+)\s*\(", text)
                    yield (name.group(1) if name else "?", first,
                           last - first + 1)
                    head = end + 1
                offset = end
        offset += 1


def count_arguments(text):
    """How many arguments stand in a parameter list."""
    depth, commas = 0, 0
    for char in text:
        depth += (char in "(<[{") - (char in ")>]}")
        commas += char == "," and depth == 0
    return commas + 1 if text.strip() else 0


def count_fields(body):
    """How many fields the body of a class or struct declares."""
    while True:  # blank nested braces, innermost first
        flat = re.sub(r"\{[^{}]*\}", ";", body)
        if flat == body:
            break
        body = flat
    count = 0
    for part in LABEL.sub("", body).split(";"):
        declaration = part.split("=")[0]
        while TEMPLATE.search(declaration):
            declaration = TEMPLATE.sub("", declaration)
        if re.search(r"[\w*&]\s+\w", declaration) and not (
                "(" in declaration or NO_FIELD.match(declaration)):
            count += declaration.count(",") + 1
    return count


def class_problems(path, code):
    """Constructors with many arguments, classes with many members."""
    for match in CLASS.finditer(code):
        name, start = match.group(1), match.end() - 1
        body = code[start + 1:matching_brace(code, start)]
        line = line_of(code, match.start(1))
        for call in re.finditer(
                rf"^\s*(?:explicit\s+)?{name}\(", body, re.MULTILINE):
            depth, end = 1, call.end()
            while depth and end < len(body):
                depth += (body[end] == "(") - (body[end] == ")")
                end += 1
            count = count_arguments(body[call.end():end - 1])
            if count > MAX_ARGUMENTS:
                yield (f"{path}:{line}: constructor of {name} takes {count} "
                       f"arguments, at most {MAX_ARGUMENTS}: use an options struct")
        fields = count_fields(body)
        if fields > MAX_MEMBERS:
            yield (f"{path}:{line}: {name} has {fields} members, "
                   f"at most {MAX_MEMBERS}")


def path_problems(path):
    if path.stem == "utils":
        yield f"{path}: no file is called utils: name the thing"
    if path.parts[0] == "deepspeed" and len(path.parts) - 2 > MAX_DEPTH:
        yield f"{path}: more than {MAX_DEPTH} folders below deepspeed/"


def size_problems(path, text):
    limit = (MAX_TEST if lint_tree.is_test(path) else
             MAX_HEADER if path.suffix == ".h" else MAX_SOURCE)
    lines = text.count("\n")
    if lines > limit:
        yield f"{path}: {lines} lines, at most {limit}"
    opening = ("//", "/*", "#!", "# ", '"""')
    if text and not text.startswith(opening):
        yield f"{path}:1: does not open with a comment"


def problems_of(root):
    problems = []
    for path in lint_tree.tree_files(root):
        problems += path_problems(path)
        if path.suffix not in lint_tree.CPP | SCRIPTS:
            continue
        text = lint_tree.read(root, path)
        problems += size_problems(path, text)
        if path.suffix not in lint_tree.CPP:
            continue
        code = lint_tree.without_comments(text, keep_strings=False)
        code = PREPROCESSOR.sub(lambda m: ";" + "\n" * m.group().count("\n"), code)
        for name, line, lines in functions(code):
            if lines > MAX_FUNCTION:
                problems.append(f"{path}:{line}: function {name} has {lines} "
                                f"lines, at most {MAX_FUNCTION}")
        problems += class_problems(path, code)
    return problems


if __name__ == "__main__":
    sys.exit(lint_tree.finish(
        "budgets", problems_of(lint_tree.root_argument())))
