"""The small model that the engine's parity tests train, its weights and batches.

engine_driver.cpp has the same model: names, order and arithmetic are equal.
"""
import json

import torch
from torch import nn

# What a job may leave out.
DEFAULTS = {
    "vocabulary": 19,
    "hidden": 7,
    "widths": [13, 11],   # of the layers between the embedding and the decoder
    "tied": True,         # the decoder's weight is the embedding's
    "spare": False,       # a layer that no loss reaches
    "buffers": True,
    "frozen": [],         # names of parameters without a gradient
}


class Toy(nn.Module):
    def __init__(self, spec):
        super().__init__()
        spec = {**DEFAULTS, **spec}
        sizes = [spec["hidden"], *spec["widths"], spec["hidden"]]
        self.embed = nn.Embedding(spec["vocabulary"], spec["hidden"])
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        if spec["spare"]:
            self.spare = nn.Linear(3, 5)
        self.decoder = nn.Linear(spec["hidden"], spec["vocabulary"])
        if spec["tied"]:
            self.decoder.weight = self.embed.weight
        if spec["buffers"]:
            self.register_buffer("offset", torch.linspace(-0.5, 0.5, spec["hidden"]))
            self.register_buffer("version", torch.tensor(3))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in spec["frozen"])

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        if hasattr(self, "offset"):
            x = x + self.offset.to(x.dtype)  # DeepSpeed leaves buffers as they are
        return nn.functional.cross_entropy(self.decoder(x).float(), targets)


def initial_weights(spec, seed=1, representable=True):
    """By name, fp32. `representable`: bf16 and fp16 hold the values exactly, so
    that nothing depends on where an engine rounds them."""
    torch.manual_seed(seed)
    model = Toy(spec)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, weight in weights.items():
        nn.init.normal_(weight, std=0.4)
        if representable:
            weights[name] = weight.bfloat16().half().float()
    return weights


def write_batches(path, count, spec=None, size=6, seed=2):
    """`count` micro batches, as JSON. Micro batch k of step s on rank r of R, with
    g micro batches a step, is number (s * g + k) * R + r."""
    vocabulary = {**DEFAULTS, **(spec or {})}["vocabulary"]
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        tokens = torch.randint(vocabulary, (size,), generator=draw)
        # Something to learn: the target follows from the token, mostly.
        targets = (tokens * 5 + 3) % vocabulary
        targets[0] = torch.randint(vocabulary, (1,), generator=draw)
        batches.append({"tokens": tokens.tolist(), "targets": targets.tolist()})
    with open(path, "w") as file:
        json.dump(batches, file)
    return path
