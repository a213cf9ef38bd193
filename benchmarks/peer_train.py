#!/usr/bin/env python3
"""Trains a PyTorch model on batches from a file: the other side of our benchmarks.

usage: peer_train.py BATCHES.jsonl [--model MODEL] [--train_bert PATH] [--steps N]
           [--shape LAYERS HEADS FF HIDDEN] [--dropout P] [--dtype fp32|bf16]
           [--compile] [--seed N] [--threads N]
           [--eval BATCHES.jsonl --eval_every N] [--device cuda]

Models (peer_models.py):
  hello         HelloDeepSpeed's, padded as it pads; with --train_bert the
                unchanged program makes it; Adam as the program has it
  packed        the same without padding, head on masked rows, fused Adam
  transformers  RobertaForMaskedLM, padded, fused Adam

bf16 is autocast with fp32 weights. Prints a line of JSON for each step, and one for
each evaluation. `hello` and `packed` run with the peers' python4 (transformers 4).
"""
import argparse
import contextlib
import json
import resource
import sys
import time

start = time.perf_counter()
import torch  # noqa: E402

import peer_models  # noqa: E402


def lines(path, count=None):
    with open(path, encoding="utf8") as file:
        for i, line in enumerate(file):
            if i == count:
                return
            yield json.loads(line)


def make_model(args):
    shape, dropout = args.shape, args.dropout
    if args.model == "packed":
        return peer_models.packed(shape, dropout, args.compile)
    if args.model == "transformers":
        return peer_models.transformers_masked_lm(shape, dropout, args.compile)
    if args.compile:
        sys.exit("--compile is for the models packed and transformers")
    if args.train_bert:
        return peer_models.of_program(args.train_bert, shape, dropout)
    return peer_models.padded(shape, dropout)


def evaluate(model, forward, path):
    model.eval()
    loss = masked = 0
    with torch.no_grad():
        for batch in lines(path):
            if batch["masked"]:
                n = len(batch["masked"])
                loss += forward(batch).item() * n
                masked += n
    model.train()
    return loss / masked


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("--model", default="hello",
                        choices=["hello", "packed", "transformers"])
    parser.add_argument("--train_bert")
    parser.add_argument("--shape", type=int, nargs=4, default=[6, 8, 512, 256])
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--eval")
    parser.add_argument("--eval_every", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main():
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    torch.manual_seed(args.seed)
    model, forward = make_model(args)
    model.train()
    optimizer = torch.optim.Adam(
        model.parameters(), lr=1e-4, fused=True if args.model != "hello" else None)
    precision = (torch.autocast(args.device, torch.bfloat16)
                 if args.dtype == "bf16" else contextlib.nullcontext())
    for step, batch in enumerate(lines(args.batches, args.steps), 1):
        began = time.perf_counter()
        optimizer.zero_grad()
        with precision:
            loss = forward(batch)
        loss.backward()
        optimizer.step()
        value = loss.item()
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(dict(
            step=step, loss=value, seconds=now - began,
            tokens=len(batch["ids"]), since_start=now - start,
            peak_memory_bytes=peak)), flush=True)
        if args.eval_every and step % args.eval_every == 0:
            with precision:
                value = evaluate(model, forward, args.eval)
            print(json.dumps(dict(step=step, eval_loss=value)), flush=True)


if __name__ == "__main__":
    main()
