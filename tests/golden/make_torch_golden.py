"""Writes the small torch files that the C++ tests read, with real torch.

    python make_torch_golden.py FOLDER

Each NAME.pt holds what torch.save makes; NAME.json says what is in it, in the
form of `torch_file_driver dump`. Values are fixed, so that a second run with
the same version of torch makes the same files.
"""

import collections
import enum
import json
import pathlib
import sys
import types
import zlib

import torch

KINDS = {list: "list", tuple: "tuple", dict: "dict"}


def dense_bytes(tensor):
    # A single element may keep an odd stride through contiguous().
    dense = tensor.detach().clone(memory_format=torch.contiguous_format)
    flat = dense.flatten()
    return bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""


def describe(value):
    """The JSON that torch_file_driver prints for the same value."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, enum.Enum):
        return record(value, 1, [value.value], None)
    if isinstance(value, (int, float)):
        return value
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
    cls = (enum.IntEnum(name, body, module=module) if bases == (enum.IntEnum,)
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


def main():
    folder = pathlib.Path(sys.argv[1])
    for make in (two_layers, views, dtypes, containers, records):
        value = make()
        path = folder / f"{make.__name__}.pt"
        torch.save(value, path)
        path.with_suffix(".json").write_text(
            json.dumps(describe(value), indent=None,
                       separators=(",", ":"), ensure_ascii=False) + "\n",
            encoding="utf-8")


if __name__ == "__main__":
    main()
