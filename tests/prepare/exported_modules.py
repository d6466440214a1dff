"""PyTorch modules that exporters get right, get wrong, or refuse: one for each thing that people are known to write."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Pair = namedtuple("Pair", "boxes scores")


@dataclass
class Detection:
    boxes: torch.Tensor
    scores: torch.Tensor


class Normed(nn.Module):
    """A convolution and a BatchNorm that was trained for a while."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        return self.norm(self.conv(x))


class Recurrent(nn.Module):
    def __init__(self, layer=nn.LSTM):
        super().__init__()
        self.layer = layer(4, 5, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


class StatedGru(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        return self.layer(x, torch.zeros(1, x.shape[0], 5))[0]


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 4)

    def forward(self, ids):
        return self.bag(ids)


class Conditional(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()


class Masked(nn.Module):
    """A transformer encoder whose fast path fills padded rows with zeros."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x, padding):
        return self.encoder(x, src_key_padding_mask=padding)


class BranchOnValues(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


class BranchOnBatch(nn.Module):
    def forward(self, x):
        if x.shape[0] == 1:
            return x * 2
        return x - 1


class LoopOverRows(nn.Module):
    def forward(self, x):
        return torch.stack([row * 2 for row in x])


class Returns(nn.Module):
    """Two tensors in a container of the kind asked for."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        boxes, scores = x * 2, x.sum(1)
        match self.kind:
            case "dict":
                return {"boxes": boxes, "scores": scores}
            case "namedtuple":
                return Pair(boxes, scores)
            case "dataclass":
                return Detection(boxes, scores)
            case "tuple":
                return boxes, scores
            case "nested":
                return {"first": (boxes, scores), "x": x}
            case _:
                return boxes


class Scaled(nn.Module):
    def forward(self, x, factor, flag=True):
        return x * factor if flag else x


class ThroughNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.tanh(x.detach().numpy()) + 1)


class WrongSymbol(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    def symbolic(g, x):
        return g.op("Identity", x)


class Custom(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


class Dropped(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.5)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


class Subtracting(nn.Module):
    def forward(self, a, b):
        return a - b


class NamedOnly(nn.Module):
    def forward(self, x, *, y):
        return x + 2 * y


class FromDict(nn.Module):
    def forward(self, batch):
        return batch["x"] - batch["y"]


class Tallying(nn.Module):
    """A counter that no output depends on."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        return x * 2


class WithNumber(nn.Module):
    def forward(self, x):
        return x + 1, 3


class SameName(nn.Module):
    """Its part is named like itself, and drops out in train mode."""

    def __init__(self):
        super().__init__()
        self.SameName = nn.Dropout(0.5)

    def forward(self, x):
        return functional.dropout(self.SameName(x), 0.5, self.training)


class Failing(nn.Module):
    def forward(self, x):
        return x.reshape(2, 7)
