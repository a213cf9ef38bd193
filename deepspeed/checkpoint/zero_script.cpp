// The script that a checkpoint folder carries.
#include "deepspeed/checkpoint/zero_script.h"

namespace deepspeed::checkpoint {
namespace {

constexpr std::string_view kScript = R"python(#!/usr/bin/env python3
"""Turns a checkpoint of ZeRO stage 1 or 2 into fp32 weights.

    python zero_to_fp32.py CHECKPOINT_DIR OUTPUT_DIR [-t TAG] [--safe_serialization]

Written by deepspeed.cpp. Needs torch (and safetensors for
--safe_serialization), not DeepSpeed. Nothing of a file is run: the unpickler
below makes tensors and plain values, and of every other class, be it DeepSpeed's
or of a client state, an inert record. The program zero_to_fp32 of deepspeed.cpp
does the same without Python, for stage 0 too, in shards, and checks the hashes
of the files.
"""

import argparse
import collections
import pathlib
import pickle
import re
import types
import zipfile

import torch

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SHARD = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")


class Record:
    """Stands for any other object: takes whatever comes, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return Record()

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass


KNOWN = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": torch.Size,
    "torch.storage.UntypedStorage": torch.UntypedStorage,
    **{f"torch._utils.{name}": getattr(torch._utils, name, Record)
       for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3",
                    "_rebuild_parameter")},
    **{str(value): value for value in vars(torch).values()
       if isinstance(value, torch.dtype)},
}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        return KNOWN.get(f"{module}.{name}", Record)


def load(path):
    module = types.SimpleNamespace(Unpickler=Unpickler, __name__="records")
    with zipfile.ZipFile(path) as archive:  # the old format is no archive
        # torch.load() would run what a TorchScript archive asks for.
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise SystemExit(f"{path}: a TorchScript archive")
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False,
                      pickle_module=module)


def find_tag(folder, tag):
    if tag is None:
        tag = (folder / "latest").read_text()[:256].strip()
    if not TAG.fullmatch(tag):
        raise SystemExit(f"'{tag}' is not the name of a tag")
    return folder / tag


def load_shards(folder):
    found = {}
    for path in folder.iterdir():
        match = SHARD.fullmatch(path.name)
        if match:
            found[int(match.group(1))] = path
    shards = [load(found[rank])["optimizer_state_dict"] for rank in sorted(found)]
    expected = max(shards[0]["partition_count"]) if shards else 0
    if sorted(found) != list(range(expected)) or not shards:
        raise SystemExit(f"{folder}: {len(found)} shards, expected {expected}")
    return shards


def to_fp32(tensor):
    return tensor.float() if tensor.is_floating_point() else tensor


def merge(model, shards, exclude_frozen):
    """name -> tensor: buffers, frozen and trained parameters, tied names."""
    module = model["module"]
    shared = model["shared_params"]
    trained = {name for group in model["param_shapes"] for name in group}
    buffers = set(model["buffer_names"])
    out = collections.OrderedDict()
    for name, tensor in module.items():
        if name in buffers:
            out[name] = to_fp32(tensor)
    for name, tensor in module.items():
        frozen = name not in trained and name not in buffers and name not in shared
        if frozen and not exclude_frozen:
            out[name] = to_fp32(tensor)
    key = "single_partition_of_fp32_groups"
    for number, shapes in enumerate(model["param_shapes"]):
        flat = torch.cat([shard[key][number].detach() for shard in shards])
        paddings = shards[0].get("param_alignment_paddings")
        at = 0
        for i, (name, shape) in enumerate(shapes.items()):
            out[name] = flat[at:at + shape.numel()].view(shape)
            at += shape.numel() + (paddings[number][i] if paddings else 0)
        if not at <= flat.numel() < at + 2 * len(shards):
            raise SystemExit(f"group {number}: {flat.numel()} elements, not {at}")
    for alias, owner in shared.items():
        if owner in out:
            out[alias] = out[owner]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint_dir", type=pathlib.Path)
    parser.add_argument("output_dir", type=pathlib.Path)
    parser.add_argument("-t", "--tag", help="default: what `latest` names")
    parser.add_argument("--safe_serialization", action="store_true",
                        help="write model.safetensors")
    parser.add_argument("--exclude_frozen_parameters", action="store_true")
    args = parser.parse_args()
    folder = find_tag(args.checkpoint_dir, args.tag)
    model = load(folder / "mp_rank_00_model_states.pt")
    state = merge(model, load_shards(folder), args.exclude_frozen_parameters)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.safe_serialization:
        from safetensors.torch import save_file
        path = args.output_dir / "model.safetensors"
        shared = {a: o for a, o in model["shared_params"].items() if o in state}
        tensors = {name: tensor.contiguous() for name, tensor in state.items()
                   if name not in shared}
        save_file(tensors, path, metadata={"format": "pt", **shared})
    else:
        path = args.output_dir / "pytorch_model.bin"
        # A view would be saved with the whole flat tensor behind it.
        copies = {id(tensor): tensor.clone() for tensor in state.values()}
        torch.save({name: copies[id(tensor)] for name, tensor in state.items()}, path)
    print(path)


if __name__ == "__main__":
    main()
)python";

} // namespace

std::string_view zero_to_fp32_script() {
  return kScript;
}

} // namespace deepspeed::checkpoint
