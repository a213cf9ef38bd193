"""Model folders: those of train_bert --export read by transformers, and those of
transformers' save_pretrained read by fill_mask.

Run by pytest with the peers' python (transformers 5) and python4 (4.57.6);
DS_BIN and DS_DATA as in small_run.py.
"""
import json
import re
import shutil

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="the Python peers are not installed: no transformers")

from small_run import BIN, SHAPE, TOKENIZER, Runner, load, require  # noqa: E402

require("train_bert", "fill_mask", "tokenize", "model_driver")
SENTENCES = [
    "The capital of France is <mask>.",
    "<mask> river runs through the <mask> city",
    "In 1848 the naïve king of Lisbon said:\u3000\u201c<mask>\u201d \U0001f44d",
    "the small old house near the water was " * 60 + "<mask>.",
]
LINES = SENTENCES + ["", " two  spaces ", "x <mask> y", "a<s>b</s> <pad>c", "don't"]


def their_model(folder):
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, output_loading_info=True)
    return model.eval(), info


def their_logits(model, tokenizer, text):
    """Of the rows with <mask>."""
    inputs = tokenizer(text, return_tensors="pt")
    rows = inputs["input_ids"][0] == tokenizer.mask_token_id
    assert rows.sum() == text.count("<mask>")
    with torch.no_grad():
        return model(**inputs).logits[0][rows]


def our_logits(runner, folder, tokenizer):
    """Of each of SENTENCES; tokenized by transformers."""
    batches = runner.folder / "sentences.jsonl"
    with batches.open("w") as file:
        for text in SENTENCES:
            ids = tokenizer(text)["input_ids"]
            masked = [i for i, id in enumerate(ids) if id == tokenizer.mask_token_id]
            json.dump(dict(
                ids=ids, positions=list(range(2, 2 + len(ids))), masked=masked,
                labels=[0] * len(masked), cu_seqlens=[0, len(ids)]), file)
            file.write("\n")
    out = runner.folder / "logits.pt"
    runner.run(BIN / "model_driver", folder, batches, out)
    return load(out)


def fill(runner, folder, text):
    """[(percent, token)], five for each <mask>."""
    lines = runner.run(BIN / "fill_mask", folder, text).splitlines()
    found = [re.match(r" *(\d+\.\d\d) %  '(.*?)' ", line) for line in lines]
    assert all(found), lines
    return [(float(match[1]), match[2]) for match in found]


def check_same_model(runner, folder):
    model, _ = their_model(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    errors = []
    for text, ours in zip(
            SENTENCES, our_logits(runner, folder, tokenizer), strict=True):
        theirs = their_logits(model, tokenizer, text)
        assert ours.shape == theirs.shape
        errors.append((ours - theirs).abs().max().item())
        top = torch.softmax(theirs, 1).topk(5)
        filled = fill(runner, folder, text)
        assert [token for _, token in filled] == [
            tokenizer.decode([id]) for id in top.indices.flatten()]
        assert [percent for percent, _ in filled] == pytest.approx(
            (100 * top.values.flatten()).tolist(), abs=0.011)
    print("largest difference of a logit:", max(errors), "logits up to",
          theirs.abs().max().item())
    assert max(errors) < 1e-4


def check_same_tokenizer(runner, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (runner.folder / "lines.txt").write_text("".join(x + "\n" for x in LINES))
    with open(runner.folder / "lines.txt") as lines:
        ours = runner.run(BIN / "tokenize", "--tokenizer", folder, stdin=lines)
    assert [[int(id) for id in line.split()] for line in ours.splitlines()] == [
        tokenizer(line)["input_ids"] for line in LINES]
    return tokenizer


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def exported(runner):
    runner.start("experiment", 5, "--export", runner.folder / "exported")
    return runner.folder / "exported"


def test_transformers_finds_all_it_looks_for(exported):
    model, info = their_model(exported)
    assert isinstance(model, transformers.RobertaForMaskedLM)
    assert not any(info.values()), info


def test_exported_weights_are_those_of_the_checkpoint(runner, exported):
    (experiment,) = (runner.folder / "experiment").iterdir()
    saved = load(experiment / "checkpoint.iter_5.pt")["model"]
    model, _ = their_model(exported)
    state = model.state_dict()
    for name, tensor in saved.items():
        if ".pooler." not in name:
            theirs = re.sub(r"^encoder\.", "roberta.", name)
            assert torch.equal(state.pop(theirs), tensor), name
    assert not state


def test_exported_model(runner, exported):
    check_same_model(runner, exported)


def test_exported_tokenizer(runner, exported):
    tokenizer = check_same_tokenizer(runner, exported)
    assert tokenizer.model_max_length == 512
    assert tokenizer.is_fast


@pytest.fixture(scope="module")
def theirs(runner):
    """A folder made by this version of transformers."""
    folder = runner.folder / "theirs"
    torch.manual_seed(3)
    transformers.RobertaForMaskedLM(transformers.RobertaConfig(
        vocab_size=50265, hidden_size=SHAPE["hidden"],
        num_hidden_layers=SHAPE["layers"], num_attention_heads=SHAPE["heads"],
        intermediate_size=SHAPE["ff"], max_position_embeddings=514,
        type_vocab_size=1, layer_norm_eps=1e-5, initializer_range=0.1,
    )).save_pretrained(folder)
    mask = transformers.AddedToken(
        "<mask>", lstrip=True, special=True, normalized=False)
    transformers.RobertaTokenizerFast(
        str(TOKENIZER / "vocab.json"), str(TOKENIZER / "merges.txt"),
        mask_token=mask).save_pretrained(folder)
    return folder


def test_model_of_transformers(runner, theirs):
    check_same_model(runner, theirs)


@pytest.mark.parametrize("kind", ["parts", "bin"])
def test_model_of_transformers_in_other_files(runner, theirs, kind):
    folder = runner.folder / kind
    shutil.copytree(theirs, folder)
    (folder / "model.safetensors").unlink()
    model = transformers.RobertaForMaskedLM.from_pretrained(theirs)
    if kind == "parts":
        model.save_pretrained(folder, max_shard_size="1MB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    else:
        # With what transformers 4.5.1 kept beside the weights.
        torch.save({**model.state_dict(), "roberta.embeddings.position_ids":
                    torch.arange(514).expand((1, -1))},
                   folder / "pytorch_model.bin")
    for text in SENTENCES[:2]:
        assert fill(runner, folder, text) == fill(runner, theirs, text)


def test_an_export_takes_older_files_away(runner, exported):
    """A tokenizer.json that stays would be taken by transformers."""
    folder = runner.folder / "again"
    tokenizer = transformers.RobertaTokenizerFast(
        str(TOKENIZER / "vocab.json"), str(TOKENIZER / "merges.txt"))
    tokenizer.add_tokens(["the", "river"])
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists()
    runner.start("experiment2", 1, "--export", folder)
    check_same_tokenizer(runner, folder)
    ours = [transformers.AutoTokenizer.from_pretrained(path)("the river")
            for path in (folder, exported)]
    assert ours[0]["input_ids"] == ours[1]["input_ids"]


def test_tokenizer_of_transformers(runner, theirs):
    check_same_tokenizer(runner, theirs)
