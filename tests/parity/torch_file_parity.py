"""Torch files and safetensors files against the Python programs that define them.

    DS_BIN=build/bin python -m pytest tests/parity/torch_file_parity.py

Needs torch, safetensors and pytest; `unzip` is used if it is there.
"""

import json
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import sys
import zipfile

import numpy
import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "golden"))
import make_torch_golden as golden

DRIVER = pathlib.Path(os.environ["DS_BIN"]) / "torch_file_driver"
DATA_ERROR = 65
MEMORY_LIMIT = 1 << 30


def driver(*args, bounded=False):
    """Runs the driver; `bounded` limits its address space."""
    command = [DRIVER, *map(str, args)]
    if bounded:
        command = ["prlimit", f"--as={MEMORY_LIMIT}", *command]
    return subprocess.run(
        command, capture_output=True, timeout=60, check=False)


def run(*args):
    done = driver(*args)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def refusal(path):
    """The message of the data error that `dump` must end with."""
    done = driver("dump", path, bounded=True)
    assert done.returncode == DATA_ERROR, (done.returncode, done.stderr)
    return done.stderr.decode()


def strided(seed):
    """A tree with tensors of random shape, dtype, stride and sharing."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float16,
              torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
              torch.bool]
    tree = {}
    for i in range(20):
        shape = [rng.randint(0 if rng.random() < 0.1 else 1, 5)
                 for _ in range(rng.randint(0, 4))]
        base = (torch.randn(shape) * 50).to(rng.choice(dtypes))
        tree[f"{i}.base"] = base
        if base.dim() > 1:
            tree[f"{i}.t"] = base.transpose(0, -1)
        if base.dim() > 0 and base.shape[0] > 1:
            tree[f"{i}.slice"] = base[1:]
            tree[f"{i}.step"] = base[::2]
    return tree


MAKERS = [golden.two_layers, golden.views, golden.dtypes, golden.late_dtypes,
          golden.containers]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_reads_what_torch_writes(make, tmp_path):
    value = make()
    torch.save(value, tmp_path / "in.pt")
    assert json.loads(run("dump", tmp_path / "in.pt")) == golden.describe(value)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_we_write(make, mmap, tmp_path):
    value = make()
    torch.save(value, tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True, mmap=mmap)
    assert golden.describe(found) == golden.describe(value)


@pytest.mark.parametrize("seed", range(20))
def test_random_trees(seed, tmp_path):
    value = strided(seed)
    torch.save(value, tmp_path / "in.pt")
    assert json.loads(run("dump", tmp_path / "in.pt")) == golden.describe(value)
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert golden.describe(found) == golden.describe(value)


def test_plain_values_come_back(tmp_path):
    """What Python puts into a client state, through our records and back."""
    value = golden.plain()
    torch.save(value, tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=False)
    assert found.keys() == value.keys()
    assert golden.describe(found) == golden.describe(value)
    for key in value:
        assert type(found[key]) is type(value[key]), key
    assert numpy.array_equal(found["array"], value["array"])
    assert found["namespace"] == value["namespace"]
    assert found["time"] == value["time"] and found["integers"] == value["integers"]
    assert found["defaultdict"]["new"] == []
    again = numpy.random.RandomState(0)
    again.set_state(found["random_state"])
    assert again.rand() == numpy.random.RandomState(7).rand()


def test_unknown_classes_are_not_written(tmp_path):
    torch.save(golden.someone(), tmp_path / "in.pt")
    assert json.loads(run("dump", tmp_path / "in.pt")) \
        == golden.describe(golden.someone())
    assert driver("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt").returncode
    assert not (tmp_path / "out.pt").exists()


def test_views_share_memory_after_the_round_trip(tmp_path):
    torch.save(golden.views(), tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    found["base"][2, 1] = -1
    assert found["row"][1] == -1 and found["column"][2] == -1


def test_an_optimizer_goes_on(tmp_path):
    """Adam with our file makes the same next step as with torch's."""
    torch.save(golden.two_layers(), tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    results = []
    for name in ("in.pt", "out.pt"):
        state = torch.load(tmp_path / name, weights_only=True)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        model.load_state_dict(state["model"])
        optimizer = torch.optim.Adam(model.parameters())
        optimizer.load_state_dict(state["optimizer"])
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*results):
        assert torch.equal(a, b)


def test_offsets_can_be_calculated(tmp_path):
    """torch may compute where storages lie instead of reading headers."""
    from torch.utils.serialization import config
    value = strided(1)
    torch.save(value, tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    config.load.calculate_storage_offsets = True
    try:
        found = torch.load(tmp_path / "out.pt", weights_only=True, mmap=True)
    finally:
        config.load.calculate_storage_offsets = False
    assert golden.describe(found) == golden.describe(value)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_our_zip_is_sound(make, tmp_path):
    torch.save(make(), tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    with zipfile.ZipFile(tmp_path / "out.pt") as archive:
        assert archive.testzip() is None
        theirs = zipfile.ZipFile(tmp_path / "in.pt").namelist()
        assert ([name.split("/", 1)[1] for name in archive.namelist()]
                == [name.split("/", 1)[1] for name in theirs])
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", tmp_path / "out.pt"], check=True,
                       stdout=subprocess.DEVNULL)


def test_reads_files_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(golden.views(), tmp_path / "in.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert (json.loads(run("dump", tmp_path / "in.pt"))
            == golden.describe(golden.views()))


def test_reads_archives_of_python(tmp_path):
    """Python's zipfile writes sizes into headers, and dates."""
    torch.save(golden.views(), tmp_path / "in.pt")
    with zipfile.ZipFile(tmp_path / "in.pt") as source, \
            zipfile.ZipFile(tmp_path / "stored.pt", "w") as stored, \
            zipfile.ZipFile(tmp_path / "packed.pt", "w",
                            zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            stored.writestr(name, source.read(name))
            packed.writestr(name, source.read(name))
    assert (json.loads(run("dump", tmp_path / "stored.pt"))
            == golden.describe(golden.views()))
    assert "compressed" in refusal(tmp_path / "packed.pt")


def test_every_flipped_byte(tmp_path):
    """Refused, or without effect."""
    torch.save({"a": torch.arange(5), "b": [1.5]}, tmp_path / "in.pt")
    run("roundtrip", tmp_path / "in.pt", tmp_path / "out.pt")
    good = (tmp_path / "out.pt").read_bytes()
    expected = run("dump", tmp_path / "out.pt")
    path = tmp_path / "flipped.pt"
    refused = 0
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x10]) + good[i + 1:])
        done = driver("dump", path)
        if done.returncode == 0:
            assert done.stdout == expected, i
        else:
            assert done.returncode == DATA_ERROR, i
            refused += 1
    assert refused > len(good) // 2


def test_truncation(tmp_path):
    torch.save(golden.views(), tmp_path / "in.pt")
    good = (tmp_path / "in.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for size in [0, 1, 21, 22, len(good) // 2, len(good) - 1]:
        path.write_bytes(good[:size])
        message = refusal(path)
        assert str(path) in message
        assert size == 0 or f"{size} bytes" in message or f"has {size}" in message


def write_torch_file(path, pickled, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for key, data in enumerate(storages):
            archive.writestr(f"a/data/{key}", data)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(6))
def test_no_code_is_run(protocol, tmp_path):
    mark = tmp_path / "pwned"
    write_torch_file(
        tmp_path / "a.pt", pickle.dumps({"model": Evil(mark)}, protocol))
    message = refusal(tmp_path / "a.pt")
    if protocol == 2:
        assert "not allowed: posix.system" in message
    assert not mark.exists()


def test_hostile_pickles(tmp_path):
    cases = {
        "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "depth": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
        "tuples": b"\x80\x02)" + b"\x85" * 10**6 + b".",
        "laughs": b"\x80\x02](]q\x00Na" + b"".join(
            b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b"e.",
        "tuple_laughs": b"\x80\x02](Nq\x00" + b"".join(
            b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"e.",
        "string": b"\x80\x02X\xff\xff\xff\xff.",
        "marks": b"\x80\x02" + b"(" * 10**6 + b".",
        "many": b"\x80\x02](" + b"N" * 10**7 + b"e.",
    }
    for name, pickled in cases.items():
        write_torch_file(tmp_path / "a.pt", pickled)
        assert "a.pt" in refusal(tmp_path / "a.pt"), name


def test_a_storage_larger_than_its_entry(tmp_path):
    torch.save({"x": torch.zeros(100)}, tmp_path / "in.pt")
    with zipfile.ZipFile(tmp_path / "in.pt") as archive:
        pickled = archive.read("in/data.pkl")
    write_torch_file(tmp_path / "a.pt", pickled, [bytes(399)])
    assert "has 399 bytes in the file" in refusal(tmp_path / "a.pt")


def test_old_format_and_torchscript_are_named(tmp_path):
    torch.save({"x": torch.zeros(3)}, tmp_path / "old.pt",
               _use_new_zipfile_serialization=False)
    assert "old file format" in refusal(tmp_path / "old.pt")
    torch.save({"x": 1}, tmp_path / "p4.pt", pickle_protocol=4)
    assert "pickle protocol 4" in refusal(tmp_path / "p4.pt")


def safe_tree():
    torch.manual_seed(0)
    return {
        "b.weight": torch.randn(3, 4),
        "a.bias": torch.randn(5).to(torch.bfloat16),
        "half": torch.randn(3).half(),
        "ids": torch.arange(7),
        "mask": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
    }


def test_safetensors_both_ways(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    save_file(safe_tree(), tmp_path / "in.safetensors", {"format": "pt"})
    run("safetensors", tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == safe_tree().keys()
    for name, tensor in safe_tree().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    # A second pass through ours changes nothing.
    run("safetensors", tmp_path / "out.safetensors", tmp_path / "again")
    assert ((tmp_path / "again").read_bytes()
            == (tmp_path / "out.safetensors").read_bytes())


def test_safetensors_agrees_with_theirs_on_damage(tmp_path):
    """Whatever byte of the header is changed: we accept no more than they do."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save
    good = save({"a": torch.arange(3), "b": torch.zeros(2, 2)})
    header = 8 + int.from_bytes(good[:8], "little")
    path = tmp_path / "a.safetensors"
    accepted = 0
    for i in range(header):
        for mask in (0x01, 0x10, 0x80):
            bad = good[:i] + bytes([good[i] ^ mask]) + good[i + 1:]
            path.write_bytes(bad)
            if driver("safetensors", path, tmp_path / "out").returncode == 0:
                accepted += 1
                try:
                    load(bad)
                except SafetensorError as error:
                    pytest.fail(f"byte {i}, mask {mask}: {error}")
    assert accepted > 0  # a changed name, for one


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
