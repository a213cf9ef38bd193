"""What the lints share: the files of a tree, C++ text without comments."""

import pathlib
import re
import subprocess
import sys

CPP = {".cpp", ".h", ".cc"}

# One alternative for each thing that a brace counter must not look into.
_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/'
    r'|R"(?P<mark>[^(\s]*)\(.*?\)(?P=mark)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'",
    re.DOTALL)


def tree_files(root):
    """Paths below `root` that git tracks or would track, sorted."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        check=True, capture_output=True).stdout
    names = sorted(set(listing.decode().split("\0")) - {""})
    paths = [pathlib.PurePosixPath(name) for name in names]
    return [path for path in paths if (pathlib.Path(root) / path).is_file()]


def is_test(path):
    """True for files that only the tests and the benchmarks use."""
    return (path.parts[0] in ("tests", "benchmarks")
            or path.stem.endswith("_test"))


def read(root, path):
    return (pathlib.Path(root) / path).read_text("utf-8", "replace")


def without_comments(text, keep_strings=True):
    """Blanks comments (and strings, on wish); every line keeps its number."""
    def blank(match):
        token = match.group()
        if token.startswith("/"):
            return "\n" * token.count("\n") or " "
        return token if keep_strings else '""' + "\n" * token.count("\n")
    return _TOKEN.sub(blank, text)


def string_literals(text):
    """(line, literal) of each string in C++ text."""
    for match in _TOKEN.finditer(text):
        if match.group()[0] in 'R"':
            yield text.count("\n", 0, match.start()) + 1, match.group()


def finish(name, problems):
    """Prints the problems; returns the exit status of the lint."""
    for problem in problems:
        print(problem)
    print(f"{name}: {len(problems)} problem(s)" if problems else f"{name}: ok")
    return 1 if problems else 0


def root_argument():
    return sys.argv[1] if len(sys.argv) > 1 else "."
