"""The PyTorch models that train_bert is measured against. Each function returns
(model, forward): forward takes a batch of write_batches and returns the loss.
"""
import bisect
import importlib.util
import sys
from pathlib import Path

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
import hello_model  # noqa: E402

NOT_A_LABEL = -100  # of transformers


def of_program(path, shape, dropout):
    """The model of HelloDeepSpeed's train_bert.py, fed as the program feeds it."""
    spec = importlib.util.spec_from_file_location("train_bert", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    model = program.create_model(*shape, dropout)

    def forward(batch):
        ids, attention_mask, masked, labels = hello_model.padded(batch)
        targets = torch.full((ids.numel(),), 1)
        targets[masked] = labels
        return model(src_tokens=ids, attention_mask=attention_mask,
                     tgt_tokens=targets.view_as(ids))

    return model, forward


def _hello(shape, dropout):
    layers, heads, ff, hidden = shape
    return hello_model.HelloModel(hello_model.config(
        layers=layers, heads=heads, ff=ff, hidden=hidden, dropout=dropout))


def padded(shape, dropout):
    """The same model, made from transformers."""
    model = _hello(shape, dropout)
    return model, lambda batch: model(*hello_model.padded(batch))


def transformers_masked_lm(shape, dropout, compiled=False):
    """RobertaForMaskedLM as its users train it: padded, a loss of its own."""
    from transformers import RobertaForMaskedLM
    layers, heads, ff, hidden = shape
    model = RobertaForMaskedLM(hello_model.config(
        layers=layers, heads=heads, ff=ff, hidden=hidden, dropout=dropout))
    run = torch.compile(model, dynamic=True) if compiled else model

    def forward(batch):
        ids, attention_mask, masked, labels = hello_model.padded(batch)
        targets = torch.full((ids.numel(),), NOT_A_LABEL)
        targets[masked] = labels
        return run(input_ids=ids, attention_mask=attention_mask,
                   labels=targets.view_as(ids)).loss

    return model, forward


def attend(q, k, v, query_bounds, bounds, dropout):
    """Attention over packed sequences: k, v are [tokens, heads, size], bounds the
    offsets of the sequences; q and query_bounds likewise. PyTorch has no kernel for it on the CPU: with dropout
    sdpa is its plain operators anyway. A call for each sequence took 0.77 s a step
    on one thread where one for the padded batch took 2.2; nested (jagged) tensors
    ask for CUDA in 2.15."""
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    return torch.cat([
        functional.scaled_dot_product_attention(
            q[:, qa:qb], k[:, a:b], v[:, a:b], dropout_p=dropout)
        for qa, qb, a, b in zip(query_bounds, query_bounds[1:], bounds, bounds[1:])
        if qa < qb], dim=1).transpose(0, 1)


def _fuse_projections(attention, names, fused_name):
    """Some of query, key and value of a layer as one product."""
    parts = [getattr(attention, name) for name in names]
    hidden = parts[0].in_features
    fused = torch.nn.Linear(hidden, len(parts) * hidden)
    with torch.no_grad():
        fused.weight.copy_(torch.cat([part.weight for part in parts]))
        fused.bias.copy_(torch.cat([part.bias for part in parts]))
    for name in names:
        delattr(attention, name)
    setattr(attention, fused_name, fused)


def packed(shape, dropout, compiled=False):
    """The model as a hand-tuned PyTorch program would run it: no padding, one
    product for query, key and value, the head on masked rows only, and the last
    layer, too, but for keys and values. `compiled`: all but the attention, whose
    lengths are others in each step."""
    model = _hello(shape, dropout)
    *layers, last = model.encoder.encoder.layer
    for layer in layers:
        _fuse_projections(layer.attention.self, ("query", "key", "value"), "qkv")
    _fuse_projections(last.attention.self, ("key", "value"), "kv")

    def embed(embeddings, ids, positions):
        x = (embeddings.word_embeddings(ids)
             + embeddings.position_embeddings(positions)
             + embeddings.token_type_embeddings.weight[0])
        return embeddings.dropout(embeddings.LayerNorm(x))

    def project(layer, x):
        heads = layer.attention.self.num_attention_heads
        return layer.attention.self.qkv(x).view(len(x), 3, heads, -1).unbind(1)

    def project_last(x, rows):
        attention = last.attention.self
        heads = attention.num_attention_heads
        return (attention.query(rows).view(len(rows), heads, -1),
                *attention.kv(x).view(len(x), 2, heads, -1).unbind(1))

    def finish(layer, context, x):
        x = layer.attention.output(context.reshape(x.shape), x)
        return layer.output(layer.intermediate(x), x)

    def loss(head, rows, labels):
        return functional.cross_entropy(head(rows), labels)

    if compiled:
        embed, project, project_last, finish, loss = (
            torch.compile(part, dynamic=True)
            for part in (embed, project, project_last, finish, loss))

    def forward(batch):
        bounds = batch["cu_seqlens"]
        masked_bounds = [bisect.bisect_left(batch["masked"], b) for b in bounds]
        drop = dropout if model.training else 0.0
        x = embed(model.encoder.embeddings, torch.tensor(batch["ids"]),
                  torch.tensor(batch["positions"]))
        for layer in layers:
            context = attend(*project(layer, x), bounds, bounds, drop)
            x = finish(layer, context, x)
        rows = x[torch.tensor(batch["masked"])]
        context = attend(*project_last(x, rows), masked_bounds, bounds, drop)
        rows = finish(last, context, rows)
        return loss(model.lm_head, rows, torch.tensor(batch["labels"]))

    return model, forward
