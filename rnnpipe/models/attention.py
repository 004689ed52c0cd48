"""Attention: where a decoder looks in the memory that an encoder left.

Shapes: B rows, S source tokens, T target tokens, M numbers of a memory vector, H of a query.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from rnnpipe.errors import UsageError

Score: TypeAlias = Literal["dot", "general", "additive"]


class Attention(nn.Module):
    """Weights a_ts = softmax over s of score(q_t, m_s), and contexts c_t = sum over s of a_ts m_s.

    dot: q.m; general: q.W m (both Luong, Pham & Manning 2015, 3.1); additive: v.tanh(W q + U m) (Bahdanau, Cho &
    Bengio 2015, A.1.2, where q is the decoder's state before the step; here it is the one behind it).
    """

    def __init__(self, query_size: int, memory_size: int, score: Score) -> None:
        super().__init__()
        if score == "dot" and query_size != memory_size:
            raise UsageError(
                f"attention 'dot' multiplies a query of {query_size} numbers with a memory of {memory_size}; use "
                "'general', or an even model.hidden_size."
            )
        self.score = score
        self.key = nn.Linear(memory_size, query_size, bias=False) if score != "dot" else None
        self.query = nn.Linear(query_size, query_size) if score == "additive" else None
        self.energy = nn.Linear(query_size, 1, bias=False) if score == "additive" else None

    def keys(self, memory: Tensor) -> Tensor:
        """Return what queries are compared with, [B, S, H], for a memory [B, S, M]; the same at every step."""
        keys: Tensor = memory if self.key is None else self.key(memory)
        return keys

    def forward(self, queries: Tensor, keys: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return contexts [B, T, M] and weights [B, T, S] for queries [B, T, H]; mask [B, S] is true at tokens.

        The softmax is taken in float32 at least.
        """
        if self.query is None or self.energy is None:
            scores = torch.bmm(queries, keys.transpose(1, 2))
        else:
            scores = self.energy(torch.tanh(self.query(queries)[:, :, None] + keys[:, None])).squeeze(-1)
        if scores.dtype in (torch.bfloat16, torch.float16):
            scores = scores.float()
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        return torch.bmm(weights.to(memory.dtype), memory), weights
