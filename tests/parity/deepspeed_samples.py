#!/usr/bin/env python3
"""Checkpoints of the real Python DeepSpeed, small ones, with what is in them.

usage: deepspeed_samples.py FOLDER [PART_OF_A_NAME]

Makes FOLDER/STAGE_RANKS_DTYPE_VARIANT/ with
  checkpoint/        latest, global_step3/, zero_to_fp32.py as DeepSpeed leaves them
  expected.json      {"fp32" | "exp_avg" | "exp_avg_sq" | "momentum_buffer" | "module":
                     {parameter name: {"shape": [...], "values": [...]}}}: the whole
                     weights and optimizer states at that step, gathered from the
                     running engine and not from the files
  job.json, trace.json  what was run (3 steps before the checkpoint, 3 after it), and
                     the losses and norms: deepspeed_peer.py explains them
"""
import copy
import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

import engine_toy

BEFORE, AFTER = 3, 3
CLIENT_STATE = {"note": "text", "checkpoint_step": 3, "ratio": 0.25, "flag": True,
                "nothing": None, "list": [1, 2.5, "x"], "nested": {"a": {"b": 1}}}
NAMES = list(engine_toy.initial_weights({}))


def config(stage, dtype, optimizer=None, **more):
    result = {
        "train_micro_batch_size_per_gpu": 6,
        "gradient_accumulation_steps": 2,
        "optimizer": optimizer or {
            "type": "Adam", "params": {"lr": 0.01, "weight_decay": 0.1}},
        "scheduler": {"type": "WarmupLR", "params": {
            "warmup_min_lr": 0.001, "warmup_max_lr": 0.02, "warmup_num_steps": 4}},
        "zero_optimization": {"stage": stage},
    }
    if dtype != "fp32":
        result[dtype] = {"enabled": True}
    if dtype == "fp16":
        result[dtype].update(initial_scale_power=10, loss_scale_window=2)
    zero = more.pop("zero", {})
    result["zero_optimization"].update(zero)
    for key, value in more.items():
        result[key] = {**result[key], **value} if isinstance(
            value, dict) and key in result else value
    return result


def two_groups(**second):
    def group(names, **values):
        return {"names": names, **values}

    return [group([n for n in NAMES if n.endswith("weight")]),
            group([n for n in NAMES if n.endswith("bias")], **second)]


# name -> (stages, ranks, dtypes, changes of the job). No Lamb: DeepSpeed has it for
# GPUs only.
SGD = {"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}}
TORCH_ADAM = {"type": "Adam", "params": {"lr": 0.01, "torch_adam": True}}
ALL, EVERY = ("fp32", "bf16", "fp16"), (0, 1, 2)
VARIANTS = {
    "base": (EVERY, (1, 2, 3), ALL, lambda s, d: {}),
    "two_groups": (EVERY, (1, 2, 3), ALL, lambda s, d: {
        "param_groups": two_groups(weight_decay=0.0, lr=0.003)}),
    "sgd": (EVERY, (2,), ALL, lambda s, d: {
        "config": config(s, d, SGD, zero_allow_untested_optimizer=True)}),
    "torch_adam": (EVERY, (2,), ALL, lambda s, d: {"config": config(s, d, TORCH_ADAM)}),
    "offload": ((1, 2), (1, 2), ALL, lambda s, d: {
        "config": config(s, d, zero={"offload_optimizer": {"device": "cpu"}})}),
    "no_clipping": (EVERY, (2,), ("bf16", "fp16"), lambda s, d: {
        "config": config(s, d, gradient_clipping=0.0)}),
    "frozen": (EVERY, (2,), ("fp32", "bf16"), lambda s, d: {
        "module": {"frozen": ["layers.0.bias", "layers.1.weight"]}}),
    "untied": ((0, 2), (2,), ("bf16",), lambda s, d: {"module": {"tied": False}}),
    "spare": (EVERY, (2,), ("fp32", "bf16"), lambda s, d: {"module": {"spare": True}}),
    "no_scheduler": ((1,), (2,), ("fp32",), lambda s, d: {
        "config": {k: v for k, v in config(s, d).items() if k != "scheduler"}}),
    "round_robin": ((1, 2), (2, 3), ("bf16",), lambda s, d: {
        "config": config(s, d, zero={"round_robin_gradients": True})}),
    "fp32_accumulation": ((1,), (1, 2), ("bf16",), lambda s, d: {
        "config": config(s, d, data_types={"grad_accum_dtype": "fp32"})}),
    "static_scale": (EVERY, (2,), ("fp16",), lambda s, d: {
        "config": config(s, d, fp16={"loss_scale": 128.0})}),
    "skipped": (EVERY, (2,), ("fp16",), lambda s, d: {
        "loss_factors": {"1": 1e9, "4": 1e9}}),
    "skipped_bf16": ((1, 2), (2,), ("bf16",), lambda s, d: {
        "config": config(s, d), "loss_factors": {"1": "inf"}}),
}


def make_job(folder, stage, ranks, dtype, changes):
    job = {
        "name": folder.name, "module": {}, "config": config(stage, dtype),
        "ranks": ranks, "steps": BEFORE + AFTER,
        "weights": str(folder / "weights.safetensors"),
        "batches": str(folder / "batches.json"),
        "save": [{"after": BEFORE, "dir": str(folder / "checkpoint"),
                  "client_state": CLIENT_STATE,
                  "final": str(folder / "expected.safetensors")}],
        **copy.deepcopy(changes)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(engine_toy.initial_weights(job["module"]), job["weights"])
    engine_toy.write_batches(job["batches"], (BEFORE + AFTER) * 2 * ranks)
    return job


def expected(path):
    result = {}
    for key, tensor in load_file(path).items():
        kind, name = key.split(".", 1)
        result.setdefault(kind, {})[name] = {
            "shape": list(tensor.shape), "values": tensor.flatten().tolist()}
    return result


def main():
    folder = Path(sys.argv[1]).absolute()
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    jobs = {}
    for variant, (stages, rank_counts, dtypes, changes) in VARIANTS.items():
        for ranks in rank_counts:
            for stage in stages:
                for dtype in dtypes:
                    name = f"{stage}_{ranks}_{dtype}_{variant}"
                    if part in name:
                        jobs.setdefault(ranks, []).append(make_job(
                            folder / name, stage, ranks, dtype, changes(stage, dtype)))
    for ranks, of_ranks in jobs.items():
        peer = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "deepspeed_peer.py",
             "--ranks", str(ranks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(folder / f"stderr_{ranks}.log").open("w"), text=True)
        for job in of_ranks:
            out = folder / job["name"]
            peer.stdin.write(json.dumps(job) + "\n")
            peer.stdin.flush()
            answer = json.loads(peer.stdout.readline())
            (out / "job.json").write_text(json.dumps(job, indent=1))
            (out / "trace.json").write_text(json.dumps(answer, indent=1))
            if "error" in answer:
                print(out.name, "FAILED", answer["error"].splitlines()[-1], flush=True)
                continue
            (out / "expected.json").write_text(
                json.dumps(expected(out / "expected.safetensors")))
            print(out.name, "ok", flush=True)
        peer.stdin.close()
        peer.wait()


if __name__ == "__main__":
    main()
