"""The CIFAR ResNet of He et al. 2015 (arXiv 1512.03385, section 4.2), shortcuts of option A."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from search.tasks.task import MakeActivation


class Block(nn.Module):
    """Two 3×3 convolutions beside an identity shortcut without parameters (option A)."""

    def __init__(self, make_activation: MakeActivation, channels: int, wide: int, stride: int):
        super().__init__()
        self.convolution1 = nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.activation1 = make_activation()
        self.convolution2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.activation2 = make_activation()
        self.stride = stride
        self.extra = wide - channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → (N, wide, H/stride, W/stride)."""
        y = self.activation1(self.norm1(self.convolution1(x)))
        y = self.norm2(self.convolution2(y))
        return self.activation2(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Every stride-th pixel, and zeros for the channels that the block adds."""
        if self.stride == 1 and not self.extra:
            return x
        before = self.extra // 2
        small = x[:, :, :: self.stride, :: self.stride]
        return F.pad(small, (0, 0, 0, 0, before, self.extra - before))


def cifar_resnet(
    make_activation: MakeActivation,
    shape: tuple[int, int, int],
    outputs: int,
    *,
    blocks: int,
    width: int = 16,
) -> nn.Module:
    """ResNet-(6·blocks + 2): a convolution, three stages of `blocks` blocks with width, 2·width
    and 4·width channels, global mean, Linear: (N, C, H, W) → (N, outputs).

    Convolutions start from He's normal distribution. 1 + 6·blocks sites.
    """
    channels = width
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(width), make_activation()]
    for stage in range(3):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(Block(make_activation, channels, width * 2**stage, stride))
            channels = width * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return model
