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

    The width is `model.hidden_size`, `model.num_layers` layers in encoder and decoder; `model.cell` has no part in it.
    `norm_first` normalizes the input of each sublayer, which trains without a long warm-up (Xiong et al. 2020); false
    is the published order. Tokens whose embedding has another size are projected.
    """

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

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Return memory [B, S, D], mask [B, S], and the target tokens read so far, [B, 0]."""
        return (*self._encode(source, lengths), source.new_zeros(source.shape[1], 0))

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, None, DecoderState]:
        """Read one target token a row; the tokens before it are read again."""
        memory, mask, before = state
        assert isinstance(memory, Tensor) and isinstance(mask, Tensor) and isinstance(before, Tensor)
        target = torch.cat((before, tokens[:, None]), 1)
        return self.read_out(self._decode(target, memory, mask)[:, -1]), None, (memory, mask, target)

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

    def _place(self, x: Tensor) -> Tensor:
        """Return vectors [B, T, D], scaled by sqrt(D), with sin and cos of their positions added (section 3.5)."""
        places = torch.arange(x.shape[1], device=x.device)[:, None]
        rates = torch.exp(torch.arange(0, self.width, 2, device=x.device) * (-math.log(10_000.0) / self.width))
        waves = torch.stack((torch.sin(places * rates), torch.cos(places * rates)), -1).flatten(1)
        return F.dropout(x * math.sqrt(self.width) + waves.to(x.dtype), self.dropout, self.training)
