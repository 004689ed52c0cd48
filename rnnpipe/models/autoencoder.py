"""Sequence autoencoders: a text becomes a code of a few numbers, and the code the text again.

They are models of pairs, whose two sides are the same text. Shapes: S source tokens, T target tokens, B texts, Z code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError
from rnnpipe.models.base import last_outputs
from rnnpipe.models.latent import Annealing, GaussianLayer, divergence
from rnnpipe.models.pair_model import PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.models.vector_model import VectorModel


class Autoencoder(VectorModel):
    """A code z = tanh(W e) of an encoder's last outputs e, from which the decoder writes (Dai & Le 2015).

    code_size: how many numbers it has. word_dropout: how often, in training, the decoder does not see the token before,
    so that it must rely on the code (Bowman et al. 2016, 3.1).
    """

    def __init__(self, parts: PairParts, *, code_size: int = 64, word_dropout: float = 0.0) -> None:
        if code_size < 1 or not 0 <= word_dropout < 1:
            raise UsageError(
                f"code_size={code_size}, word_dropout={word_dropout}: 1 or more, and a number from 0 to below 1."
            )
        super().__init__(parts, code_size)
        self.encoder = parts.recur(self.source_encoder_size, (parts.hidden_size + 1) // 2, True)
        self.word_dropout = word_dropout
        self.code = self.code_layer(self.encoder.output_size, code_size)

    def code_layer(self, size: int, code_size: int) -> nn.Module:
        """Return what makes the code of a vector."""
        return nn.Sequential(nn.Linear(size, code_size), nn.Tanh())

    def recurrents(self) -> list[Recurrent]:
        """Return encoder and decoder."""
        return [self.encoder, self.decoder]

    def embed_target(self, ids: Tensor) -> Tensor:
        """Return the vectors of target ids [T, B], some of them left out in training."""
        vectors = super().embed_target(ids)
        if not self.training or not self.word_dropout:
            return vectors
        return vectors * (torch.rand(ids.shape, device=ids.device) >= self.word_dropout)[..., None]

    def encode(self, source: Tensor, lengths: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the codes."""
        return self.code(self.summarise(source, lengths)), None

    def summarise(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return the encoder's last outputs."""
        outputs = self.encoder.outputs(self.embed_source(source), lengths)
        return last_outputs(outputs, lengths, self.encoder)


class VariationalAutoencoder(Autoencoder):
    """A code that is drawn: z ~ N(m(e), v(e)), at the cost of KL(N(m, v) || N(0, 1)) nats a text (Bowman et al. 2016).

    The mean stands for the code where the text is not known. anneal_steps: over how many steps that cost comes in.
    """

    variational = True

    def __init__(
        self, parts: PairParts, *, code_size: int = 64, word_dropout: float = 0.0, anneal_steps: int = 1000
    ) -> None:
        super().__init__(parts, code_size=code_size, word_dropout=word_dropout)
        self.annealing = Annealing(anneal_steps)

    def code_layer(self, size: int, code_size: int) -> nn.Module:
        """Return what makes the distribution of the code."""
        return GaussianLayer(size, code_size)

    def encode(self, source: Tensor, lengths: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return codes, drawn where the target is known, and then what they cost."""
        codes = self.code(self.summarise(source, lengths))
        if target is None:
            return codes.mean, None
        return codes.draw(), self.annealing(divergence(codes))
