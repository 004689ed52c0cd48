"""The recurrent encoder-decoder, with and without attention.

Shapes: S source tokens, T target tokens, B pairs, H the decoder's outputs, M a memory vector, F a feature vector.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.attention import Attention
from rnnpipe.models.base import last_outputs
from rnnpipe.models.pair_model import Bridge, DecoderState, PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent


class EncoderDecoder(PairModel):
    """A recurrent stack reads the source, another one writes the target; any cell, `num_layers` layers in each.

        m = encoder(x);  s_t, h_t = decoder(y_t, s_(t-1));  c_t = attention(h_t, m);  f_t = tanh(W [h_t; c_t])

    The decoder begins from the encoder's last outputs (`Bridge`); without attention (attention="none"; Sutskever,
    Vinyals & Le 2014) that is all it knows of the source. `bidirectional` (the default) gives each direction of the
    encoder half of the hidden size. `input_feeding` gives the decoder f_(t-1) beside y_t (Luong et al. 2015, 3.3); it
    must then go token by token, while otherwise the whole target runs at once in training.
    """

    def __init__(
        self,
        parts: PairParts,
        *,
        attention: Literal["none", "dot", "general", "additive"] = "general",
        input_feeding: bool = False,
        bidirectional: bool = True,
    ) -> None:
        super().__init__(parts)
        half = (parts.hidden_size + 1) // 2 if bidirectional else None
        self.encoder = parts.recur(self.source_encoder_size, half, bidirectional)
        self.feeds = input_feeding
        self.decoder = parts.recur(self.embedding_size * (2 if input_feeding else 1), None, False)
        self.bridge = Bridge(self.encoder.output_size, self.decoder)
        self.attention: Attention | None = None
        if attention != "none":
            self.attention = Attention(self.decoder.output_size, self.encoder.output_size, attention)
        elif self.bridge.linear is None:
            raise UsageError(
                "model.name.attention=none: this cell's state has no leaf `h` that the source could begin it with, so "
                "the decoder would know nothing of the source; use attention."
            )
        context = self.encoder.output_size if self.attention else 0
        self.combine = nn.Linear(self.decoder.output_size + context, self.embedding_size)

    @property
    def recurrent(self) -> Recurrent:  # type: ignore[override]
        """Return the decoder."""
        return self.decoder

    @property
    def attends(self) -> bool:
        """Say whether there is attention."""
        return self.attention is not None

    def recurrents(self) -> list[Recurrent]:
        """Return encoder and decoder."""
        return [self.encoder, self.decoder]

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, None]:
        """Return features [T, B, F] behind each target token."""
        memory, keys, mask, state, feed = self._encode(source, lengths)
        embedded = self.embed_target(target)
        if not self.feeds:
            outputs, _ = self.decoder(embedded, state)
            return self._attend(outputs, memory, keys, mask)[0], None
        features = []
        for vectors in embedded:
            outputs, state = self.decoder(torch.cat((vectors, feed.to(vectors.dtype)), -1)[None], state)
            feature, _ = self._attend(outputs, memory, keys, mask)
            feed = feature[0]
            features.append(feature)
        return torch.cat(features), None

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Return memory [B, S, M], keys [B, S, H], mask [B, S], the decoder's first state, and the vector to feed."""
        return self._encode(source, lengths)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, Tensor | None, DecoderState]:
        """Read one target token a row."""
        memory, keys, mask, recurrent, feed = state
        assert isinstance(memory, Tensor) and isinstance(keys, Tensor) and isinstance(mask, Tensor)
        assert isinstance(recurrent, tuple) and isinstance(feed, Tensor)
        embedded = self.embed_target(tokens[None])
        if self.feeds:
            embedded = torch.cat((embedded, feed[None].to(embedded.dtype)), -1)
        outputs, recurrent = self.decoder(embedded, recurrent)
        features, weights = self._attend(outputs, memory, keys, mask)
        return (
            self.read_out(features[0]),
            None if weights is None else weights[:, 0],
            (memory, keys, mask, recurrent, features[0]),
        )

    def _encode(
        self, source: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, tuple[tuple[Tensor, ...], ...], Tensor]:
        outputs = self.encoder.outputs(self.embed_source(source), lengths)
        state = self.bridge(last_outputs(outputs, lengths, self.encoder), self.decoder)
        memory = self.drop(outputs).transpose(0, 1)
        keys = memory if self.attention is None else self.attention.keys(memory)
        mask = torch.arange(source.shape[0], device=source.device) < lengths.to(source.device)[:, None]
        return memory, keys, mask, state, memory.new_zeros(source.shape[1], self.embedding_size)

    def _attend(self, outputs: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features [T, B, F] and weights [B, T, S] for the decoder's outputs [T, B, H]."""
        outputs = self.drop(outputs)
        weights = None
        if self.attention is not None:
            contexts, weights = self.attention(outputs.transpose(0, 1), keys, memory, mask)
            outputs = torch.cat((outputs, contexts.transpose(0, 1).to(outputs.dtype)), -1)
        return torch.tanh(self.combine(outputs)), weights
