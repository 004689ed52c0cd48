"""Hierarchical encoder-decoders for dialogue: the source is what was said so far, turn by turn, the target the reply.

Shapes: S source tokens, T target tokens, B dialogues, H hidden numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rnnpipe.errors import UsageError
from rnnpipe.models.base import last_outputs
from rnnpipe.models.latent import Annealing, GaussianLayer, divergence
from rnnpipe.models.pair_model import PairParts
from rnnpipe.models.recurrent import Recurrent
from rnnpipe.models.vector_model import VectorModel


class _Dialogue(VectorModel):
    """What both models share: a stack over the tokens of each turn, one over the turns' vectors, and the decoder.

    separator: the source token that stands between turns. more: how many numbers the decoder reads beside the context.
    """

    def __init__(self, parts: PairParts, separator: str, more: int) -> None:
        number = parts.source_id(separator)
        if number is None:
            raise UsageError(
                f"model.name.separator={separator!r} is no token of the source's dictionary; it stands between turns, "
                "as in 'hello . | good morning .'"
            )
        super().__init__(parts, parts.hidden_size + more)
        self.separator = number
        self.turns = parts.recur(self.source_encoder_size, (parts.hidden_size + 1) // 2, True)
        self.context = parts.recur(self.turns.output_size, None, False)

    def recurrents(self) -> list[Recurrent]:
        """Return the stack over tokens, that over turns, and the decoder."""
        return [self.turns, self.context, self.decoder]

    def summarise(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return [B, H], the context behind the last turn of each dialogue."""
        turns = [
            piece
            for column, length in zip(source.T, lengths.tolist(), strict=True)
            for piece in cut_turns(column[:length], self.separator)
        ]
        sizes = torch.tensor([len(turn) for turn in turns], device=source.device)
        outputs = self.turns.outputs(self.embed_source(pad_sequence(turns)), sizes)
        vectors = last_outputs(outputs, sizes, self.turns)
        inside = torch.arange(len(source), device=source.device)[:, None] < lengths.to(source.device) - 1
        counts = 1 + ((source == self.separator) & inside).sum(0)
        dialogues = pad_sequence(list(torch.split(vectors, counts.tolist())))
        return last_outputs(self.context.outputs(dialogues, counts), counts, self.context)


class HRED(_Dialogue):
    """One stack reads each turn, a second one the turns' vectors, and the decoder replies (Sordoni et al. 2015).

    separator: the source token that stands between turns.
    """

    def __init__(self, parts: PairParts, *, separator: str = "|") -> None:
        super().__init__(parts, separator, 0)

    def encode(self, source: Tensor, lengths: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the context behind the last turn."""
        return self.summarise(source, lengths), None


class VHRED(_Dialogue):
    """HRED whose decoder also reads z, a latent variable of the whole reply (Serban et al. 2017).

    In training z ~ q(z | context, reply) at the cost of KL(q || p); where there is no reply yet the mean of the prior
    p(z | context) stands for it. latent_size: how many numbers z has. anneal_steps: over how many steps the cost comes
    in.
    """

    variational = True

    def __init__(
        self, parts: PairParts, *, separator: str = "|", latent_size: int = 32, anneal_steps: int = 1000
    ) -> None:
        if latent_size < 1:
            raise UsageError(f"model.name.latent_size={latent_size}: it takes 1 or more.")
        super().__init__(parts, separator, latent_size)
        self.reply = parts.recur(self.embedding_size, (parts.hidden_size + 1) // 2, True)
        self.prior = GaussianLayer(self.context.output_size, latent_size)
        self.posterior = GaussianLayer(self.context.output_size + self.reply.output_size, latent_size)
        self.annealing = Annealing(anneal_steps)

    def recurrents(self) -> list[Recurrent]:
        """Return the stacks over tokens, turns and reply, and the decoder."""
        return [*super().recurrents(), self.reply]

    def encode(self, source: Tensor, lengths: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return context and latent variable side by side."""
        context = self.summarise(source, lengths)
        prior = self.prior(context)
        if target is None:
            return torch.cat((context, prior.mean.to(context.dtype)), -1), None
        # The boundary is at both ends of a target; behind the last token there is nothing but boundaries.
        sizes = 1 + (target[1:] != target[0]).sum(0)
        outputs = self.reply.outputs(self.embed_target(target), sizes)
        reply = last_outputs(outputs, sizes, self.reply)
        posterior = self.posterior(torch.cat((context, reply.to(context.dtype)), -1))
        latent = posterior.draw().to(context.dtype)
        return torch.cat((context, latent), -1), self.annealing(divergence(posterior, prior))


def cut_turns(ids: Tensor, separator: int) -> list[Tensor]:
    """Return the turns of a dialogue of ids that the boundary ends; each keeps the separator or boundary behind it."""
    ends = (ids[:-1] == separator).nonzero()[:, 0] + 1
    return list(torch.tensor_split(ids, ends.cpu()))
