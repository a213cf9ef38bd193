"""The C++ model against transformers: losses, gradients, a short training run.

Run by pytest with the peers' python4 (transformers 4). DS_BIN is the folder of
the built programs."""
import json
import subprocess

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="the Python peers are not installed: no transformers")
if not transformers.__version__.startswith("4."):
    pytest.skip("needs transformers 4, which ties lm_head.bias",
                allow_module_level=True)

import hello_model  # noqa: E402
from small_run import BIN, require  # noqa: E402

require("model_driver")
SHAPE = dict(layers=2, heads=4, ff=96, hidden=64, vocab=1000)


def random_batches(count, vocab, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, n=1):
        return torch.randint(low, high, (n,), generator=generator).tolist()

    batches = []
    for _ in range(count):
        batch = dict(ids=[], positions=[], cu_seqlens=[0], masked=[], labels=[])
        for length in draw(3, 120, n=draw(1, 9)[0]):
            first = len(batch["ids"])
            batch["ids"] += [0] + draw(4, vocab, length - 2) + [2]
            batch["positions"] += range(2, 2 + length)
            chosen = sorted(set(draw(1, length - 1, max(1, length // 7))))
            batch["masked"] += [first + i for i in chosen]
            batch["labels"] += draw(4, vocab, len(chosen))
            batch["cu_seqlens"].append(len(batch["ids"]))
        batches.append(batch)
    return batches


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    settings = hello_model.config(dropout=0.0, **SHAPE)
    model = hello_model.HelloModel(settings)
    with torch.no_grad():  # biases and norms that are not all 0 and 1
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.eval()
    torch.save(dict(model.named_parameters()), folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(
        {k: getattr(settings, k) for k in (
            "vocab_size", "hidden_size", "num_hidden_layers",
            "num_attention_heads", "intermediate_size")}))
    return folder, model


def drive(folder, batches, *mode):
    (folder / "batches.jsonl").write_text(
        "".join(json.dumps(batch) + "\n" for batch in batches))
    subprocess.run(
        [BIN / "model_driver", folder / "config.json", folder / "weights.pt",
         folder / "batches.jsonl", folder / "out.pt", *mode],
        check=True, timeout=300)
    return torch.load(folder / "out.pt", weights_only=True)


def peer_gradients(model, batch):
    model.zero_grad()
    loss = model(*hello_model.padded(batch))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()
                         if p.grad is not None}


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_loss_and_gradients(setting, implementation):
    folder, model = setting
    batches = random_batches(20, SHAPE["vocab"], seed=1)
    ours = drive(folder, batches, "gradients", "fp32", implementation)
    for batch, loss, gradients in zip(batches, ours["losses"],
                                      ours["gradients"]):
        peer_loss, peer = peer_gradients(model, batch)
        assert loss == pytest.approx(peer_loss, rel=1e-5)
        assert gradients.keys() == peer.keys()
        largest = max(g.norm().item() for g in peer.values())
        for name, expected in peer.items():
            error = (gradients[name] - expected).norm().item()
            if "key.bias" in name:
                # 0 but for rounding: softmax does not see this bias.
                assert error < 1e-6 * largest, name
            else:
                assert error < 1e-4 * expected.norm().item(), name


def test_bf16_gradients_point_the_same_way(setting):
    folder, model = setting
    batches = random_batches(4, SHAPE["vocab"], seed=2)
    ours = drive(folder, batches, "gradients", "bf16")
    for batch, loss, gradients in zip(batches, ours["losses"],
                                      ours["gradients"]):
        peer_loss, peer = peer_gradients(model, batch)
        assert loss == pytest.approx(peer_loss, rel=1e-2)
        for name, expected in peer.items():
            if "key.bias" in name:
                continue
            cosine = torch.nn.functional.cosine_similarity(
                gradients[name].flatten(), expected.flatten(), dim=0)
            assert cosine > 0.999, name


def test_training_run_follows_torch(setting):
    folder, model = setting
    batches = random_batches(50, SHAPE["vocab"], seed=3)
    ours = drive(folder, batches, "train")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        for batch, loss in zip(batches, ours["losses"]):
            optimizer.zero_grad()
            peer_loss = model(*hello_model.padded(batch))
            peer_loss.backward()
            optimizer.step()
            assert loss == pytest.approx(peer_loss.item(), rel=1e-3)
    finally:
        model.load_state_dict(start)
