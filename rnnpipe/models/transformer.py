"""The Transformer (Vaswani et al. 2017), from torch's own modules: the baseline that recurrent models are set beside.

Shapes: S source tokens, T target tokens, B pairs, D the width, F a feature vector.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.pair_model import DecoderState, PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent


class Transformer(PairModel):
    """Multi-head attention, sinusoidal positions, residual connections and layer normalization.

    The width is `model.hidden_size`, `model.num_layers` layers in encoder and decoder; it takes no `model.cell`.
    `norm_first` normalizes the input of each sublayer, which trains without a long warm-up (Xiong et al. 2020); false
    is the published order. Tokens whose embedding has another size are projected.
    """

    has_cell = False

    def __init__(
        self, parts: PairParts, *, heads: int = 4, feedforward: int | None = None, norm_first: bool = True
    ) -> None:
        super().__init__(parts)
        width = parts.hidden_size
        if heads < 1 or width % heads or width % 2:
            raise UsageError(f"model.hidden_size={width}: it takes an even multiple of model.name.heads={heads}.")
        settings: dict[str, Any] = {
            "d_model": width,
            "nhead": heads,
            "dim_feedforward": feedforward or 4 * width,
            "dropout": parts.dropout,
            "batch_first": True,
            "norm_first": norm_first,
        }
        self.width = width
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**settings), parts.num_layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**settings), parts.num_layers, nn.LayerNorm(width)
        )
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        size = self.embedding_size
        self.widen_source = nn.Linear(self.source_encoder_size, width) if size != width else nn.Identity()
        self.widen_target = nn.Linear(size, width) if size != width else nn.Identity()
        self.narrow = nn.Linear(width, size) if size != width else nn.Identity()

    def recurrents(self) -> list[Recurrent]:
        """Return no stack: there is none."""
        return []

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, None]:
        """Return features [T, B, F] behind each target token."""
        memory, mask = self._encode(source, lengths)
        return self._decode(target.T, memory, mask).transpose(0, 1), None

    @property
    def attends(self) -> bool:
        """Say that there is attention."""
        return True

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Return mask [B, S], and for each layer keys and values of the source, [B, S, 2 D], and of no token yet."""
        memory, mask = self._encode(source, lengths)
        nothing = memory.new_zeros(len(memory), 0, 2 * self.width)
        return mask, tuple((_keys_and_values(layer.multihead_attn, memory), nothing) for layer in self._layers())

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor, DecoderState]:
        """Read one target token a row; the attention is the last layer's on the source, the mean over its heads.

        Of the tokens before it each layer keeps keys and values, so that they are not read again.
        """
        mask, layers = state
        assert isinstance(mask, Tensor)
        caches: list[tuple[Tensor, Tensor]] = list(layers)  # type: ignore[arg-type]
        x = self._place(self.widen_target(self.target_encoder(tokens[:, None])), caches[0][1].shape[1])
        attended, following = [], []
        for layer, (source, before) in zip(self._layers(), caches, strict=True):
            x, weights, read = _step_layer(layer, x, source, before, mask)
            attended.append(weights)
            following.append((source, read))
        assert isinstance(self.decoder.norm, nn.LayerNorm)
        features = self.narrow(self.decoder.norm(x))
        return self.read_out(features[:, 0]), attended[-1][:, 0], (mask, tuple(following))

    def _layers(self) -> list[nn.TransformerDecoderLayer]:
        return [layer for layer in self.decoder.layers if isinstance(layer, nn.TransformerDecoderLayer)]

    def _encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.arange(source.shape[0], device=source.device) < lengths.to(source.device)[:, None]
        x = self._place(self.widen_source(self.source_encoder(source.T)))
        return self.encoder(x, src_key_padding_mask=~mask), mask

    def _decode(self, target: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Return features [B, T, F] for target ids [B, T]."""
        x = self._place(self.widen_target(self.target_encoder(target)))
        steps = target.shape[1]
        ahead = torch.ones(steps, steps, dtype=torch.bool, device=target.device).triu(1)
        y = self.decoder(x, memory, tgt_mask=ahead, tgt_is_causal=True, memory_key_padding_mask=~mask)
        features: Tensor = self.narrow(y)
        return features

    def _place(self, x: Tensor, first: int = 0) -> Tensor:
        """Return vectors [B, T, D], scaled by sqrt(D), with sin and cos of their positions added (section 3.5)."""
        places = torch.arange(first, first + x.shape[1], device=x.device)[:, None]
        rates = torch.exp(torch.arange(0, self.width, 2, device=x.device) * (-math.log(10_000.0) / self.width))
        waves = torch.stack((torch.sin(places * rates), torch.cos(places * rates)), -1).flatten(1)
        return F.dropout(x * math.sqrt(self.width) + waves.to(x.dtype), self.dropout, self.training)


def _step_layer(
    layer: nn.TransformerDecoderLayer, x: Tensor, source: Tensor, before: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's output for one token [B, 1, D], its attention on the source, and keys and values with it."""
    first = layer.norm_first
    inner = layer.norm1(x) if first else x
    read = torch.cat((before, _keys_and_values(layer.self_attn, inner).to(before.dtype)), 1)
    found, _ = _attend(layer.self_attn, inner, read, None)
    x = x + layer.dropout1(found) if first else layer.norm1(x + layer.dropout1(found))
    found, weights = _attend(layer.multihead_attn, layer.norm2(x) if first else x, source, mask)
    x = x + layer.dropout2(found) if first else layer.norm2(x + layer.dropout2(found))
    inner = layer.linear1(layer.norm3(x) if first else x)
    found = layer.dropout3(layer.linear2(layer.dropout(layer.activation(inner))))
    return x + found if first else layer.norm3(x + found), weights, read


def _keys_and_values(attention: nn.MultiheadAttention, memory: Tensor) -> Tensor:
    """Return [B, S, 2 D]: what queries are compared with, and what is then summed, for vectors [B, S, D]."""
    size = attention.embed_dim
    return F.linear(memory, attention.in_proj_weight[size:], attention.in_proj_bias[size:])


def _attend(
    attention: nn.MultiheadAttention, queries: Tensor, read: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what the module gives for queries [B, T, D], [B, T, D], and its mean weights over the heads, [B, T, S].

    read: keys and values [B, S, 2 D]; mask: [B, S], true at tokens.
    """
    size, heads = attention.embed_dim, attention.num_heads
    q = F.linear(queries, attention.in_proj_weight[:size], attention.in_proj_bias[:size])
    q, k, v = (each.view(*each.shape[:2], heads, -1).transpose(1, 2) for each in (q, *read.chunk(2, -1)))
    scores = q @ k.transpose(2, 3) / math.sqrt(size // heads)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    weights = scores.softmax(-1)
    sums = F.dropout(weights, attention.dropout, attention.training) @ v
    return attention.out_proj(sums.transpose(1, 2).flatten(2)), weights.mean(1)
