#!/usr/bin/env python3
"""HelloDeepSpeed's train_bert_ds.py loop under Python DeepSpeed, on batches from a
file, with the configuration of that program.

usage: deepspeed --num_gpus R deepspeed_hello_peer.py BATCHES.jsonl
           [--program TRAIN_BERT_DS.py] [--shape LAYERS HEADS FF HIDDEN]
           [--dropout P] [--batch_size N] [--dtype bf16|fp16|fp32]
           [--learning_rate LR] [--first_step N] [--steps N]
           [--load DIR] [--save DIR] [--started SECONDS]

Rank r of R takes the r-th part of each batch. With --program the model is made by
the unchanged program, else by hello_model.py. --load takes a checkpoint folder
before training, --save writes one after it. Prints a line of JSON for each step on
rank 0, and one with the peak memory of each rank at the end. --started: the
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

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what DeepSpeed prints is no answer

import torch  # noqa: E402

import deepspeed  # noqa: E402
from deepspeed.accelerator import get_accelerator  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))
import hello_model  # noqa: E402
from deepspeed_peer import plain_operators  # noqa: E402


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


def program_model(path, shape, dropout):
    """The model of the real program, fed as the program feeds it."""
    spec = importlib.util.spec_from_file_location("train_bert_ds", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def arguments(batch):
        ids, attention_mask, masked, labels = hello_model.padded(batch)
        targets = torch.full((ids.numel(),), 1)
        targets[masked] = labels
        return dict(src_tokens=ids, attention_mask=attention_mask,
                    tgt_tokens=targets.view_as(ids))

    return program.create_model(*shape, dropout), arguments


def own_model(shape, dropout):
    layers, heads, ff, hidden = shape
    model = hello_model.HelloModel(hello_model.config(
        layers=layers, heads=heads, ff=ff, hidden=hidden, dropout=dropout))
    names = ("ids", "attention_mask", "masked", "labels")
    return model, lambda batch: dict(zip(names, hello_model.padded(batch)))


def configuration(args):
    result = {
        "train_micro_batch_size_per_gpu": args.batch_size,
        "optimizer": {"type": "Adam", "params": {"lr": args.learning_rate}},
        "zero_optimization": {
            "stage": 1, "offload_optimizer": {"device": "cpu"}},
    }
    if args.dtype != "fp32":
        result[args.dtype] = {"enabled": True}
    return result


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("--program")
    parser.add_argument("--shape", type=int, nargs=4, default=[6, 8, 512, 256])
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--first_step", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--load")
    parser.add_argument("--save")
    parser.add_argument("--started", type=float, default=time.time())
    parser.add_argument("--plain_operators", action="store_true",
                        help="do without DeepSpeed's compiled Adam")
    parser.add_argument("--local_rank", type=int)  # of the launcher
    return parser.parse_args()


def main():
    args = parse()
    get_accelerator().is_fp16_supported = lambda: True  # see deepspeed_peer.py
    if args.plain_operators:
        plain_operators()
    torch.manual_seed(42)
    if args.program:
        model, arguments = program_model(args.program, args.shape, args.dropout)
    else:
        model, arguments = own_model(args.shape, args.dropout)
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=configuration(args))
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def answer(**values):
        if rank == 0:
            answers.write(json.dumps(values) + "\n")
            answers.flush()

    if args.load:
        path, state = engine.load_checkpoint(args.load)
        answer(loaded=path, checkpoint_step=state["checkpoint_step"])
    engine.train()
    last = None if args.steps is None else args.first_step + args.steps
    with open(args.batches, encoding="utf8") as file:
        for step, line in enumerate(file, 1):
            if step <= args.first_step:
                continue
            if last is not None and step > last:
                break
            batch = json.loads(line)
            mine = part(batch, rank, ranks)
            began = time.perf_counter()
            loss = engine(**arguments(mine))
            engine.backward(loss)
            engine.step()
            value = loss.item()
            seconds = time.perf_counter() - began
            losses = [None] * ranks
            torch.distributed.all_gather_object(losses, value)
            answer(step=step, loss=sum(losses) / ranks, seconds=seconds,
                   tokens=len(batch["ids"]), since_start=time.time() - args.started)
    if args.save:
        engine.save_checkpoint(
            args.save, client_state={"checkpoint_step": engine.global_steps})
    peaks = [None] * ranks
    torch.distributed.all_gather_object(
        peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    answer(peak_memory_bytes=peaks)
    # Gloo's threads must not outlive the interpreter: it aborts then, now and then.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
