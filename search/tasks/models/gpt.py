"""A small GPT: pre-norm decoder blocks, learned positions, plain or gated feed-forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.tasks.task import MakeActivation

FEED_FORWARDS = ("plain", "gated")


class Attention(nn.Module):
    """Causal self-attention over (N, T, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) → (N, T, width); position t sees positions 0 … t."""
        split = self.project_in(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (N, heads, T, width/heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project_out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Plain: W₂ f(W₁ x), hidden 4·width."""

    def __init__(self, make_activation: MakeActivation, width: int):
        super().__init__()
        self.project_in = nn.Linear(width, 4 * width, bias=False)
        self.activation = make_activation()
        self.project_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) → (N, T, width)."""
        return self.project_out(self.activation(self.project_in(x)))


class GatedFeedForward(nn.Module):
    """Gated (Shazeer 2020, arXiv 2002.05202): W₃ f(W₁ x, W₂ x).

    An activation whose expression has the second input u is called with both; any other becomes
    f(W₁ x) · W₂ x. Hidden 8/3·width, so that the three matrices weigh as much as the plain two.
    """

    def __init__(self, make_activation: MakeActivation, width: int):
        super().__init__()
        hidden = round(8 * width / 3)
        self.project_gate = nn.Linear(width, hidden, bias=False)
        self.project_in = nn.Linear(width, hidden, bias=False)
        self.activation = make_activation()
        expression = getattr(self.activation, "expression", None)
        self.takes_pair = "u" in getattr(expression, "inputs", ())
        self.project_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) → (N, T, width)."""
        gate, u = self.project_gate(x), self.project_in(x)
        hidden = self.activation(gate, u) if self.takes_pair else self.activation(gate) * u
        return self.project_out(hidden)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, make_activation: MakeActivation, width: int, heads: int, ffn: str):
        super().__init__()
        feed_forward = GatedFeedForward if ffn == "gated" else FeedForward
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = feed_forward(make_activation, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) → (N, T, width)."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class GPT(nn.Module):
    """Logits of each next character: (N, T) characters → (N, T, alphabet), T ≤ context."""

    def __init__(
        self,
        make_activation: MakeActivation,
        alphabet: int,
        *,
        layers: int,
        heads: int,
        width: int,
        context: int,
        ffn: str = "plain",
    ):
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        blocks = [Block(make_activation, width, heads, ffn) for _ in range(layers)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, alphabet, bias=False)
        self._initialise(layers)

    def _initialise(self, layers: int) -> None:
        """GPT-2's: N(0, 0.02), with the projections into the residual stream / √(2·layers)."""
        nn.init.normal_(self.positions, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                residual = name.endswith("project_out")
                std = 0.02 / math.sqrt(2 * layers) if residual else 0.02
                nn.init.normal_(module.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T) int64 → (N, T, alphabet)."""
        x = self.characters(x) + self.positions[: x.shape[1]]
        return self.head(self.norm(self.blocks(x)))
