"""HelloDeepSpeed's RobertaMLMModel, written from its description: what the C++
model is compared with. Needs transformers 4, which ties lm_head.bias to the
bias of the decoder (with transformers 5 we tie them)."""
import torch
from transformers.models.roberta import RobertaConfig, RobertaModel
from transformers.models.roberta.modeling_roberta import (
    RobertaLMHead,
    RobertaPreTrainedModel,
)


def config(layers=6, heads=8, ff=512, hidden=256, dropout=0.1, vocab=50265):
    return RobertaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ff,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=0.02,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )


class HelloModel(RobertaPreTrainedModel):
    """encoder + tied lm_head; the loss is the mean over the masked tokens."""

    def __init__(self, settings):
        super().__init__(settings)
        self.encoder = RobertaModel(settings)
        self.lm_head = RobertaLMHead(settings)
        self.lm_head.decoder.weight = (
            self.encoder.embeddings.word_embeddings.weight)
        self.lm_head.decoder.bias = self.lm_head.bias  # as transformers 4 does
        self.lm_head.apply(self._init_weights)

    def forward(self, ids, attention_mask, masked, labels):
        hidden = self.encoder(
            input_ids=ids, attention_mask=attention_mask).last_hidden_state
        rows = hidden.reshape(-1, hidden.shape[-1])[masked]
        return torch.nn.functional.cross_entropy(self.lm_head(rows), labels)


def padded(batch):
    """A packed batch as padded tensors: ids, attention mask, masked rows,
    labels."""
    bounds = batch["cu_seqlens"]
    lengths = [b - a for a, b in zip(bounds, bounds[1:])]
    longest = max(lengths)
    ids = torch.full((len(lengths), longest), 1)
    mask = torch.zeros_like(ids)
    place = {}
    for row, (start, length) in enumerate(zip(bounds, lengths)):
        ids[row, :length] = torch.tensor(batch["ids"][start:start + length])
        mask[row, :length] = 1
        for i in range(length):
            place[start + i] = row * longest + i
    rows = torch.tensor([place[i] for i in batch["masked"]])
    return ids, mask, rows, torch.tensor(batch["labels"])
