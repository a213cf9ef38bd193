"""The PyTorch peer of the benchmarks with our tricks computes what the padded model
computes: the same loss and the same gradients, so that its speed compares."""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))
import peer_models  # noqa: E402

SHAPE = [2, 4, 64, 32]  # layers, heads, ff, hidden
LENGTHS = (7, 12, 3, 5)  # the last one without a masked token


def batch():
    generator = torch.Generator().manual_seed(1)
    bounds = [0]
    for length in LENGTHS:
        bounds.append(bounds[-1] + length)
    ids = torch.randint(5, 50000, (bounds[-1],), generator=generator)
    return {
        "ids": ids.tolist(), "cu_seqlens": bounds,
        "positions": [2 + i for length in LENGTHS for i in range(length)],
        "masked": [1, 4, 9, 20], "labels": [17, 40000, 5, 50264],
    }


def made(function):
    torch.manual_seed(3)
    model, forward = function(SHAPE, 0.0)
    loss = forward(batch())
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters()}


def test_packed_is_the_padded_model():
    loss, gradients = made(peer_models.packed)
    padded_loss, padded_gradients = made(peer_models.padded)
    torch.testing.assert_close(loss, padded_loss, rtol=1e-5, atol=0)
    for name, gradient in padded_gradients.items():
        part = None
        for words, fused in ((("query", "key", "value"), "qkv"), (("key", "value"), "kv")):
            for i, word in enumerate(words):
                fused_name = name.replace(f".{word}.", f".{fused}.")
                if fused_name != name and fused_name in gradients:
                    part = gradients[fused_name].chunk(len(words))[i]
        if "pooler" in name:
            continue  # of neither loss
        torch.testing.assert_close(
            gradients[name] if part is None else part, gradient,
            rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
