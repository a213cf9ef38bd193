"""Writes what DeepSpeed's schedulers and loss scaler do, for the C++ tests.

    python make_schedule_golden.py FOLDER

Needs deepspeed (0.19.8) and torch. schedules.json: each case has a "scheduler"
as in ds_config.json, the lr of each param group before, the betas if the
schedule moves them, and lr (and betas) at last_batch_iteration = -1, 0, 1, ...
loss_scales.json: an "fp16" block, whether each step overflowed ("1"), and the
scale after each step, until the scaler raised or the steps ended.
"""

import json
import logging
import pathlib
import random
import sys

import torch
from deepspeed.runtime import lr_schedules
from deepspeed.runtime.fp16 import loss_scaler

logging.disable(logging.CRITICAL)
loss_scaler.dist.get_rank = lambda: 1  # silent, no process group


def warmup(kind, **params):
    return {"type": kind, "params": params}


CYCLE = {"cycle_min_lr": 0.1, "cycle_max_lr": 1.0, "cycle_first_step_size": 5}
SCHEDULES = [
    (warmup("WarmupLR", warmup_max_lr=1.0, warmup_num_steps=5), [0.5]),
    (warmup("WarmupLR", warmup_max_lr=1.0, warmup_num_steps=5,
            warmup_type="linear"), [0.5]),
    (warmup("WarmupLR", warmup_num_steps=4), [0.5, 0.25]),
    (warmup("WarmupLR", warmup_num_steps=1, warmup_min_lr=0.1), [0.5]),
    (warmup("WarmupLR", warmup_num_steps=3, warmup_min_lr=[0.1, 0.2],
            warmup_max_lr=[1.0, 2.0]), [0.5, 0.25]),
    (warmup("WarmupDecayLR", warmup_max_lr=1.0, warmup_num_steps=5,
            total_num_steps=10, warmup_type="linear"), [0.5]),
    (warmup("WarmupDecayLR", warmup_num_steps=5, total_num_steps=12), [0.5]),
    (warmup("WarmupDecayLR", warmup_num_steps=5, total_num_steps=5), [0.5]),
    (warmup("WarmupCosineLR", warmup_num_steps=5, total_num_steps=10,
            warmup_type="linear"), [1e-3]),
    (warmup("WarmupCosineLR", warmup_num_steps=3, total_num_steps=20,
            warmup_min_ratio=0.2, cos_min_ratio=0.1), [1e-3, 3.0]),
    (warmup("WarmupCosineLR", warmup_num_steps=4, total_num_steps=4), [1.0]),
    (warmup("LRRangeTest", lr_range_test_step_size=4), [0.5]),
    (warmup("LRRangeTest", lr_range_test_step_size=4,
            lr_range_test_min_lr=[0.1, 0.3], lr_range_test_step_rate=0.5,
            lr_range_test_staircase=True), [0.5, 0.5]),
    (warmup("OneCycle", **CYCLE), [0.5]),
    (warmup("OneCycle", **CYCLE, cycle_second_step_size=3,
            decay_lr_rate=0.5, decay_step_size=2, decay_mom_rate=0.25),
     [0.5, 0.25]),
    (warmup("OneCycle", **CYCLE, cycle_momentum=False, decay_lr_rate=0.5,
            decay_step_size=4), [0.5]),
    (warmup("OneCycle", **CYCLE, cycle_first_stair_count=3,
            cycle_second_step_size=7, decay_step_size=3), [0.5]),
    (warmup("OneCycle", **CYCLE, cycle_first_stair_count=2,
            cycle_second_stair_count=4, cycle_min_mom=[0.7, 0.75],
            cycle_max_mom=0.95), [0.5, 0.25]),
    (warmup("OneCycle", **CYCLE, cycle_second_step_size=0), [0.5]),
]


def run_schedule(scheduler, group_lrs, steps=26):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr}
              for lr in group_lrs]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    made = getattr(lr_schedules, scheduler["type"])(
        optimizer, **scheduler["params"])
    case = {"scheduler": scheduler, "group_lrs": group_lrs, "lr": []}
    moves = getattr(made, "cycle_momentum", False)
    if moves:
        case["betas"] = []
    for _ in range(steps):
        case["lr"].append([float(g["lr"]) for g in optimizer.param_groups])
        if moves:
            case["betas"].append(
                [list(g["betas"]) for g in optimizer.param_groups])
        made.step()
    return case


SCALERS = [
    ({}, 0.1),
    ({"loss_scale_window": 3}, 0.15),
    ({"loss_scale_window": 1, "hysteresis": 1}, 0.4),
    ({"loss_scale_window": 4, "hysteresis": 3}, 0.3),
    ({"loss_scale_window": 5, "consecutive_hysteresis": True}, 0.3),
    ({"loss_scale_window": 2, "hysteresis": 4, "consecutive_hysteresis": True},
     0.5),
    ({"initial_scale_power": 4, "min_loss_scale": 4, "loss_scale_window": 8},
     0.3),
    ({"initial_scale_power": 3, "min_loss_scale": 3, "hysteresis": 1,
      "loss_scale_window": 4}, 0.35),
]


def run_scaler(fp16, chance, steps, source):
    scaler = loss_scaler.DynamicLossScaler(
        init_scale=2**fp16.get("initial_scale_power", 16),
        scale_window=fp16.get("loss_scale_window", 1000),
        min_scale=fp16.get("min_loss_scale", 1),
        delayed_shift=fp16.get("hysteresis", 2),
        consecutive_hysteresis=fp16.get("consecutive_hysteresis", False))
    case = {"fp16": dict(fp16, enabled=True), "overflow": "", "scale": []}
    case["raised"] = False
    for _ in range(steps):
        overflow = source.random() < chance
        case["overflow"] += "1" if overflow else "0"
        try:
            scaler.update_scale(overflow)
        except Exception:
            case["raised"] = True
            break
        case["scale"].append(scaler.cur_scale)
    case["iteration"] = scaler.cur_iter
    case["last_overflow"] = scaler.last_overflow_iter
    case["hysteresis"] = scaler.cur_hysteresis
    return case


def write(path, cases):
    rows = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{rows}\n]\n")


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "schedules.json",
          [run_schedule(*schedule) for schedule in SCHEDULES])
    source = random.Random(1)
    scales = [run_scaler(fp16, chance, 150, source)
              for fp16, chance in SCALERS for _ in range(2)]
    scales.append(run_scaler({}, 0.0, 2005, source))  # grows at 1001 and 2001
    write(folder / "loss_scales.json", scales)


if __name__ == "__main__":
    main(sys.argv[1])
