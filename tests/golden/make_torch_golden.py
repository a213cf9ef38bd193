"""Writes the small torch files that the C++ tests read, with real torch.

    python make_torch_golden.py FOLDER

Each NAME.pt holds what torch.save makes; NAME.json says what is in it, in the
form of `torch_file_driver dump`. Values are fixed, so that a second run with
the same version of torch makes the same files.
"""

import _compat_pickle
import argparse
import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import json
import pathlib
import random
import sys
import types
import uuid
import zlib

import numpy
import torch

KINDS = {list: "list", tuple: "tuple", dict: "dict"}


def dense_bytes(tensor):
    # A single element may keep an odd stride through contiguous().
    dense = tensor.detach().clone(memory_format=torch.contiguous_format)
    flat = dense.flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def describe(value):
    """The JSON that torch_file_driver prints for the same value."""
    if value is None or type(value) in (bool, str):
        return value
    if type(value).__module__ == "someone":
        return unknown(type(value))
    if isinstance(value, enum.Enum):
        return record(value, 1, [value.value], None)
    if type(value) is int and not -2**63 <= value < 2**63:
        size = (value + (value < 0)).bit_length() // 8 + 1
        return {"kind": "integer",
                "bytes": value.to_bytes(size, "little", signed=True).hex()}
    if type(value) in (int, float):
        return value
    if type(value) is bytes:
        return {"kind": "object", "name": "_codecs.encode", "call": 1,
                "arguments": [value.decode("latin1"), "latin1"], "state": None}
    if type(value) is bytearray and value:  # pickle has its own way with it
        return {"kind": "object", "name": "__builtin__.bytearray", "call": 1,
                "arguments": [describe(bytes(value))], "state": None}
    if is_plain(value):
        return reduced(value)
    if isinstance(value, torch.Size):
        return record(value, 1, [tuple(value)], None)
    if isinstance(value, torch.dtype):
        return {"kind": "object", "name": str(value), "call": 0,
                "arguments": [], "state": None}
    if isinstance(value, torch.Tensor):
        return {
            "kind": "tensor",
            "dtype": str(value.dtype).removeprefix("torch."),
            "sizes": list(value.shape),
            "strides": list(value.stride()),
            "offset": value.storage_offset(),
            "storage_bytes": value.untyped_storage().nbytes(),
            "requires_grad": value.requires_grad,
            "parameter": isinstance(value, torch.nn.Parameter),
            "crc": zlib.crc32(dense_bytes(value)),
        }
    if type(value) in (list, tuple):
        return {"kind": KINDS[type(value)],
                "items": [describe(item) for item in value]}
    if isinstance(value, dict):
        ordered = isinstance(value, collections.OrderedDict)
        out = {"kind": "ordered_dict" if ordered else "dict",
               "entries": [[describe(k), describe(v)]
                           for k, v in value.items()]}
        if ordered and vars(value):
            out["attributes"] = describe(vars(value))
        return out
    return record(value, 2, [], vars(value))


def record(value, call, arguments, state):
    kind = type(value)
    return {"kind": "object", "name": f"{kind.__module__}.{kind.__qualname__}",
            "call": call, "arguments": [describe(a) for a in arguments],
            "state": describe(state)}


def unknown(kind):
    return {"kind": "object", "name": f"{kind.__module__}.{kind.__qualname__}",
            "call": 3, "arguments": [], "state": None}


def is_plain(value):
    exact = (bytearray, set, frozenset, complex, range, slice, type,
             collections.deque, collections.Counter, collections.defaultdict,
             argparse.Namespace, types.SimpleNamespace, torch.device,
             torch.layout, random.Random)
    return type(value) in exact or type(value).__module__ in (
        "datetime", "decimal", "fractions", "numpy", "numpy.dtypes",
        "pathlib", "uuid",
        "numpy.random.mtrand", "torch.torch_version")


def plain_name(module, name):
    pair = _compat_pickle.REVERSE_NAME_MAPPING.get((module, name))
    if pair is None:
        pair = _compat_pickle.REVERSE_IMPORT_MAPPING.get(module, module), name
    return ".".join(pair)


def reduced(value):
    """What protocol 2 would call to make `value`, as a record."""
    if isinstance(value, type):
        return {"kind": "object",
                "name": plain_name(value.__module__, value.__qualname__),
                "call": 0, "arguments": [], "state": None}
    special = copyreg.dispatch_table.get(type(value))
    parts = special(value) if special else value.__reduce_ex__(2)
    call, arguments, state, items, pairs = (*parts, None, None, None)[:5]
    made = call is copyreg.__newobj__
    if made:
        call, *arguments = arguments
    out = {"kind": "object",
           "name": plain_name(call.__module__, call.__qualname__),
           "call": 2 if made else 1,
           "arguments": [describe(a) for a in arguments],
           "state": describe(state)}
    if items is not None and (items := list(items)):
        out["items"] = [describe(i) for i in items]
    if pairs is not None and (pairs := list(pairs)):
        out["entries"] = [[describe(k), describe(v)] for k, v in pairs]
    return out


def two_layers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(2):
        optimizer.zero_grad()
        model(torch.full((2, 4), 0.5 + step)).square().sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "base": base,
        "row": base[2],
        "column": base[:, 1],
        "transposed": base.t(),
        "block": base[1:3, 2:5],
        "expanded": torch.tensor([7.0]).expand(3, 4),
    }


def dtypes():
    values = torch.arange(-3, 4)
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32",
             "int16", "int8", "bool"]
    out = {name: values.to(getattr(torch, name)) for name in names}
    out["uint8"] = values.abs().to(torch.uint8)
    out["scalar"] = torch.tensor(2.5)
    out["empty"] = torch.empty(0)
    out["empty_matrix"] = torch.empty(3, 0, 2, dtype=torch.int64)
    return out


def containers():
    shared = [1, 2]
    return {
        "none": None, "true": True, "false": False,
        "integers": [0, 255, 256, 65535, 65536, -1, -129, 2**31, -2**31,
                     2**32, -2**40, 2**62, 2**63 - 1, -2**63],
        "reals": [0.0, -0.0, 1e-8, 0.1, 1e300],
        "strings": ["", "a", "Zürich 雪 🦀", "a"],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "lists": [[], [[]], shared, shared],
        "long": list(range(2001)),
        "dict": {1: "one", "1": "text", (1, 2): "tuple", None: 0},
        "dicts": [{}, {"a": 1}, {str(i): i for i in range(1001)}],
        "ordered": collections.OrderedDict(
            (str(i), i) for i in range(1001)),
        "shape": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "parameters": [torch.nn.Parameter(torch.ones(2)),
                       torch.nn.Parameter(torch.zeros(1),
                                          requires_grad=False)],
    }


def peer_class(module, name, bases, body):
    """A class that pickles under the name of one of DeepSpeed's."""
    for i in range(1, module.count(".") + 2):
        path = ".".join(module.split(".")[:i])
        sys.modules.setdefault(path, types.ModuleType(path))
    cls = (bases[0](name, body, module=module) if issubclass(
               bases[-1] if bases else object, enum.Enum)
           else type(name, bases, dict(body, __module__=module)))
    setattr(sys.modules[module], name, cls)
    return cls


def records():
    scaler = peer_class("deepspeed.runtime.fp16.loss_scaler", "LossScaler",
                        (), {})()
    scaler.cur_scale, scaler.dynamic = 1.0, False
    stage = peer_class("deepspeed.runtime.zero.config", "ZeroStageEnum",
                       (enum.IntEnum,), {"disabled": 0, "optimizer_states": 1})
    address = peer_class("deepspeed.utils.tensor_fragment", "fragment_address",
                         (), {})()
    address.numel, address.start = 8, 0
    return {"loss_scaler": scaler, "zero_stage": stage(1),
            "param_slice_mappings": [{"weight": address}]}


def late_dtypes():
    """Complex numbers, and dtypes that have no class of storages."""
    values = torch.arange(0, 6)
    names = ["complex64", "complex128", "uint16", "uint32", "uint64",
             "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
             "float8_e5m2fnuz"]
    out = {name: values.to(torch.float32).to(getattr(torch, name))
           for name in names}
    out["column"] = out["uint16"].reshape(2, 3)[:, 1]
    out["parameter"] = torch.nn.Parameter(
        torch.ones(2, dtype=torch.complex64) * 1j)
    return out


def plain():
    """Values of a client state that are neither tensors nor containers."""
    hour = datetime.timezone(datetime.timedelta(hours=1))
    counter = collections.Counter("aab")
    lists = collections.defaultdict(list, a=[1], b=[2])
    return {
        "float64": numpy.float64(1.5), "int64": numpy.int64(-3),
        "array": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
        "words": numpy.array(["ab", "c"]), "dtype": numpy.dtype("f4"),
        "class": numpy.float32, "keys": {numpy.int64(1): 2, hour: 3},
        "random_state": numpy.random.RandomState(7).get_state(),
        "random": random.Random(7).getstate()[1][:9],
        "set": {1}, "frozenset": frozenset([2]), "bytes": b"a\xff\x00",
        "no_bytes": bytearray(), "some_bytes": bytearray(b"x"),
        "complex": 1 - 2j, "range": range(1, 9, 2), "slice": slice(1, None),
        "defaultdict": lists, "counter": counter,
        "deque": collections.deque([1, 2], 3), "type": int,
        "namespace": argparse.Namespace(lr=0.1, args=(1, {2})),
        "simple": types.SimpleNamespace(a=[None]),
        "time": datetime.datetime(2024, 2, 29, 12, 30, 1, 5, hour),
        "date": datetime.date(2024, 2, 29),
        "duration": datetime.timedelta(1, 2, 3),
        "path": pathlib.PurePosixPath("/a/b"),
        "decimal": decimal.Decimal("1.50"),
        "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=2**70),
        "device": torch.device("cuda", 1), "layout": torch.strided,
        "version": torch.torch_version.TorchVersion("2.1.0"),
        "integers": [2**63, -2**63 - 1, 2**64, 2**3000],
    }


def someone():
    """Values of classes that only their owner knows."""
    colour = peer_class("someone", "Colour", (enum.Enum,), {"RED": 1})
    options = peer_class("someone", "Options", (), {})()
    options.myself = options
    rows = peer_class("someone", "Rows", (list,), {})([1, 2])
    table = peer_class("someone", "Table", (dict,), {})(a=1)
    return {"step": 3, "colour": colour.RED, "options": options, "rows": rows,
            "table": table,
            "args": {"seed": 1, "mode": colour.RED, "modes": [colour.RED]},
            "by_colour": {colour.RED: 1, "x": 2}}


def main():
    folder = pathlib.Path(sys.argv[1])
    for make in (two_layers, views, dtypes, containers, records, late_dtypes,
                 plain, someone):
        value = make()
        path = folder / f"{make.__name__}.pt"
        torch.save(value, path)
        path.with_suffix(".json").write_text(
            json.dumps(describe(value), indent=None,
                       separators=(",", ":"), ensure_ascii=False) + "\n",
            encoding="utf-8")


if __name__ == "__main__":
    main()
