#!/usr/bin/env python3
"""HelloDeepSpeed's training loop on batches from a file, in PyTorch.

usage: peer_train.py BATCHES.jsonl [--train_bert PATH] [--steps N] [--seed N]
                     [--eval BATCHES.jsonl --eval_every N] [--threads N]
                     [--packed] [--device cuda]

With --train_bert the unchanged train_bert.py of HelloDeepSpeed makes the model;
without it, the same model is made from transformers (tests/parity). Batches are
padded as train_bert.py pads them; with --packed the same modules run on packed
sequences, as a hand-tuned PyTorch program would: the same model, less work.
Prints a line of JSON for each step, and one
for each evaluation. Run with the peers' python4 (transformers 4).
"""
import argparse
import importlib.util
import json
import resource
import sys
import time
from pathlib import Path

start = time.perf_counter()
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "parity"))
import hello_model  # noqa: E402


def hello_deepspeed_model(path):
    """The model of the real program, fed as the program feeds it."""
    spec = importlib.util.spec_from_file_location("train_bert", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    model = program.create_model(6, 8, 512, 256, 0.1)

    def forward(batch):
        ids, attention_mask, masked, labels = hello_model.padded(batch)
        targets = torch.full((ids.numel(),), 1)
        targets[masked] = labels
        return model(src_tokens=ids, attention_mask=attention_mask,
                     tgt_tokens=targets.view_as(ids))

    return model, forward


def packed_model():
    """HelloModel's modules without padding; attention one sequence a time."""
    functional = torch.nn.functional
    model = hello_model.HelloModel(hello_model.config())

    def forward(batch):
        bounds = batch["cu_seqlens"]
        embeddings = model.encoder.embeddings
        x = (embeddings.word_embeddings(torch.tensor(batch["ids"]))
             + embeddings.position_embeddings(torch.tensor(batch["positions"]))
             + embeddings.token_type_embeddings.weight[0])
        x = embeddings.dropout(embeddings.LayerNorm(x))
        for layer in model.encoder.encoder.layer:
            attention = layer.attention.self
            heads = attention.num_attention_heads
            q, k, v = (f(x).view(len(x), heads, -1).transpose(0, 1)
                       for f in (attention.query, attention.key,
                                 attention.value))
            context = torch.cat([
                functional.scaled_dot_product_attention(
                    q[:, a:b], k[:, a:b], v[:, a:b],
                    dropout_p=attention.dropout.p * model.training)
                for a, b in zip(bounds, bounds[1:])], dim=1)
            x = layer.attention.output(
                context.transpose(0, 1).reshape(x.shape), x)
            x = layer.output(layer.intermediate(x), x)
        rows = x[torch.tensor(batch["masked"])]
        return functional.cross_entropy(
            model.lm_head(rows), torch.tensor(batch["labels"]))

    return model, forward


def lines(path, count=None):
    with open(path, encoding="utf8") as file:
        for i, line in enumerate(file):
            if i == count:
                return
            yield json.loads(line)


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("--train_bert")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--eval")
    parser.add_argument("--eval_every", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    torch.manual_seed(args.seed)
    if args.train_bert:
        model, forward = hello_deepspeed_model(args.train_bert)
    elif args.packed:
        model, forward = packed_model()
    else:
        model = hello_model.HelloModel(hello_model.config())

        def forward(batch):
            return model(*hello_model.padded(batch))

    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for step, batch in enumerate(lines(args.batches, args.steps), 1):
        began = time.perf_counter()
        optimizer.zero_grad()
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
            print(json.dumps(dict(
                step=step, eval_loss=evaluate(model, forward, args.eval))),
                flush=True)


if __name__ == "__main__":
    main()
