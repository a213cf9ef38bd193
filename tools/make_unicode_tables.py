#!/usr/bin/env python3
"""Writes deepspeed/text/unicode_tables.cpp: what \\p{L}, \\p{N} and \\s match in
Hugging Face's `tokenizers`, asked for every code point.

usage: make_unicode_tables.py OUTPUT     (needs the PyPI package tokenizers)

The answers come from the library and not from Python's unicodedata, because
the two are of different Unicode versions and a single code point that changes
its class changes ids.
"""
import sys

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

OTHER, LETTER, NUMBER, SPACE = range(4)
NAMES = {LETTER: "kLetterRanges", NUMBER: "kNumberRanges", SPACE: "kSpaceRanges"}


def split_class():
    """The class of a character, by which neighbour it is put in one piece with."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str

    def classify(character):
        for neighbour, kind in (("a", LETTER), ("1", NUMBER), (".", OTHER)):
            if len(split(neighbour + character)) == 1:
                return kind
        return SPACE

    return classify


def stripped_class():
    """Whether a token with lstrip=True eats the character before it."""
    tokenizer = Tokenizer(models.BPE(vocab={"<unk>": 0}, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return lambda character: len(tokenizer.encode(character + "<mask>").ids) == 1


def ranges_of(classes, kind):
    found = []
    for point, value in classes.items():
        if value != kind:
            continue
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def main():
    (output,) = sys.argv[1:]
    classify, is_stripped = split_class(), stripped_class()
    classes = {}
    for point in range(0x110000):
        if 0xD800 <= point <= 0xDFFF:
            continue
        classes[point] = classify(chr(point))
        # One table serves both only as long as both agree on white space.
        assert is_stripped(chr(point)) == (classes[point] == SPACE), hex(point)

    lines = [
        "// Code points that \\p{L}, \\p{N} and \\s match in the PyPI package",
        f"// tokenizers {tokenizers.__version__}. Made by tools/make_unicode_tables.py.",
        '#include "deepspeed/text/unicode_tables.h"',
        "",
        "namespace deepspeed::text {",
        "",
        "// clang-format off",
    ]
    for kind, name in NAMES.items():
        ranges = [f"{{0x{a:X},0x{b:X}}}" for a, b in ranges_of(classes, kind)]
        lines.append(f"const CodePointRange {name}[] = {{")
        row = ""
        for text in ranges:
            if len(row) + len(text) > 90:
                lines.append(row)
                row = ""
            row += text + ","
        lines += [row, "};", f"const size_t {name}Size = {len(ranges)};", ""]
    lines += ["// clang-format on", "", "} // namespace deepspeed::text", ""]
    with open(output, "w", encoding="ascii") as file:
        file.write("\n".join(lines))


if __name__ == "__main__":
    main()
