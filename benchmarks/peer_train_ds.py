#!/usr/bin/env python3
"""HelloDeepSpeed's train_bert_ds.py loop under Python DeepSpeed, on batches from a
file: bf16, stage 1, optimizer offload, as the program configures it.

usage: deepspeed --num_gpus 2 peer_train_ds.py BATCHES.jsonl TRAIN_BERT_DS.py
                 [--steps N] [--started SECONDS]

Rank r of R takes the r-th part of each batch. Prints a line of JSON for each step
on rank 0, and one with the peak memory of each rank at the end. --started: the
time.time() at which the launcher was started. Run with transformers 4.
"""
import argparse
import importlib.util
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
import deepspeed  # noqa: E402
import hello_model  # noqa: E402


def part(batch, rank, ranks):
    """The sequences of one rank, as a packed batch of their own."""
    bounds = batch["cu_seqlens"]
    count = (len(bounds) - 1) // ranks
    bounds = bounds[rank * count:(rank + 1) * count + 1]
    begin, end = bounds[0], bounds[-1]
    kept = [i for i, place in enumerate(batch["masked"]) if begin <= place < end]
    return {
        "ids": batch["ids"][begin:end],
        "cu_seqlens": [bound - begin for bound in bounds],
        "masked": [batch["masked"][i] - begin for i in kept],
        "labels": [batch["labels"][i] for i in kept],
    }


def load_program(path):
    spec = importlib.util.spec_from_file_location("train_bert_ds", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("program")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--started", type=float, default=time.time())
    parser.add_argument("--local_rank", type=int)  # of the launcher
    args = parser.parse_args()
    torch.manual_seed(42)
    model = load_program(args.program).create_model(6, 8, 512, 256, 0.1)
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config={
            "train_micro_batch_size_per_gpu": 8,
            "optimizer": {"type": "Adam", "params": {"lr": 1e-4}},
            "bf16": {"enabled": True},
            "zero_optimization": {
                "stage": 1, "offload_optimizer": {"device": "cpu"}},
        })
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    answers = os.fdopen(os.dup(1), "w")
    engine.train()
    with open(args.batches, encoding="utf8") as file:
        for step, line in enumerate(file, 1):
            if args.steps and step > args.steps:
                break
            batch = json.loads(line)
            mine = part(batch, rank, ranks)
            began = time.perf_counter()
            ids, attention_mask, masked, labels = hello_model.padded(mine)
            targets = torch.full((ids.numel(),), 1)
            targets[masked] = labels
            loss = engine(src_tokens=ids, attention_mask=attention_mask,
                          tgt_tokens=targets.view_as(ids))
            engine.backward(loss)
            engine.step()
            value = loss.item()
            if rank == 0:
                answers.write(json.dumps(dict(
                    step=step, loss=value, seconds=time.perf_counter() - began,
                    tokens=len(batch["ids"]),
                    since_start=time.time() - args.started)) + "\n")
                answers.flush()
    peaks = [None] * ranks
    torch.distributed.all_gather_object(
        peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if rank == 0:
        answers.write(json.dumps({"peak_memory_bytes": peaks}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
