"""Models of pairs whose decoder knows the source by one vector alone.

Shapes: S source tokens, T target tokens, B pairs, Z numbers of the vector, E of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnpipe.models.pair_model import Bridge, DecoderState, PairModel, PairParts
from rnnpipe.models.recurrent import Recurrent


class VectorModel(PairModel):
    """A decoder that begins from a vector v of the source, and reads it beside each token.

        h_t = decoder([y_t; v], h_(t-1)),  h_0 = tanh(U v);  f_t = tanh(W h_t)

    A subclass gives the vector by `encode`, of the size that it names here.
    """

    def __init__(self, parts: PairParts, vector_size: int) -> None:
        super().__init__(parts)
        self.decoder = parts.recur(self.embedding_size + vector_size, None, False)
        self.bridge = Bridge(vector_size, self.decoder)
        self.combine = nn.Linear(self.decoder.output_size, self.embedding_size)

    @property
    def recurrent(self) -> Recurrent:  # type: ignore[override]
        """Return the decoder."""
        return self.decoder

    def encode(self, source: Tensor, lengths: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return vectors [B, Z] for sources [S, B], and what is to be added to the sum of the losses, or None.

        target: [T, B] where it is known, in training and for a bound, otherwise None.
        """
        raise NotImplementedError

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features [T, B, E] behind each target token; the vector knows of the target in training only."""
        return self._read(target, *self.encode(source, lengths, target if self.training else None))

    def bound(self, source: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features as in training, and the whole cost of the vector."""
        return self._read(target, *self.encode(source, lengths, target))

    def _read(self, target: Tensor, vector: Tensor, extra: Tensor | None) -> tuple[Tensor, Tensor | None]:
        embedded = self.embed_target(target)
        beside = vector.to(embedded.dtype).expand(len(target), -1, -1)
        outputs, _ = self.decoder(torch.cat((embedded, beside), -1), self.bridge(vector, self.decoder))
        return self._features(outputs), extra

    def begin(self, source: Tensor, lengths: Tensor) -> DecoderState:
        """Return the vector and the decoder's first state."""
        vector, _ = self.encode(source, lengths, None)
        return vector, self.bridge(vector, self.decoder)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, None, DecoderState]:
        """Read one target token a row."""
        vector, recurrent = state
        assert isinstance(vector, Tensor) and isinstance(recurrent, tuple)
        embedded = self.embed_target(tokens[None])
        x = torch.cat((embedded, vector[None].to(embedded.dtype)), -1)
        outputs, recurrent = self.decoder(x, recurrent)
        return self.read_out(self._features(outputs)[0]), None, (vector, recurrent)

    def _features(self, outputs: Tensor) -> Tensor:
        return torch.tanh(self.combine(self.drop(outputs)))
