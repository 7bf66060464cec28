"""The same training step in PyTorch, of the same network from the same start: it is refused if its first loss and
gradient are not this project's."""

import os
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from vqvae_gluon.bench.serve import Served, check_start
from vqvae_gluon.config import PRESETS, Config


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``preset``, ``inputs`` and ``start``, as train_gluon has them, and ``way``, as serve_torch has it."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with np.load(job["start"]) as start:
        arrays = dict(start)
    learner = TorchLearner(PRESETS[job["preset"]], arrays, job["way"])
    inputs = [np.load(path) for path in job["inputs"]]
    loss = learner.step(inputs[0])
    norm = float(torch.sqrt(sum((p.grad**2).sum() for p in learner.trained())))
    check_start(job["way"], arrays, loss, norm)
    return Served(learner.step, inputs)


class Network(torch.nn.Module):
    """Encoder and decoder with Gluon's parameters by their names, float32 (N, C, H, W) in 0..1."""

    def __init__(self, config: Config, arrays: dict[str, np.ndarray]):
        super().__init__()
        self.config = config.model
        for name, value in arrays.items():
            if name.startswith("model/") and not name.endswith("codebook"):
                self.register_parameter(name[len("model/") :], torch.nn.Parameter(torch.tensor(value)))

    def _conv(self, x, name: str, stride: int = 1):
        weight = getattr(self, f"{name}_weight")
        pad = 0 if weight.shape[-1] == 1 else 1
        return F.conv2d(x, weight, getattr(self, f"{name}_bias"), stride, pad)

    def _up(self, x, name: str):
        return F.conv_transpose2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), 2, 1)

    def _stack(self, x, half: str):
        x = F.relu(self._conv(x, f"{half}_stem"))
        for i in range(self.config.residual_blocks):
            hidden = F.relu(self._conv(F.relu(x), f"{half}_block{i}_conv0"))
            x = x + self._conv(hidden, f"{half}_block{i}_conv1")
        return F.relu(x)

    def encode(self, x):
        is_residual = self.config.residual_blocks > 0
        x = x - 0.5 if is_residual else x
        for i in range(len(self.config.hidden_channels)):
            x = F.relu(self._conv(x, f"encoder_conv{i}", stride=2))
        x = self._stack(x, "encoder") if is_residual else x
        x = self._conv(x, "encoder_latent")
        return x if is_residual else torch.tanh(x)

    def decode(self, x):
        is_residual = self.config.residual_blocks > 0
        x = self._stack(x, "decoder") if is_residual else x
        for i in range(len(self.config.hidden_channels) - is_residual):
            x = F.relu(self._up(x, f"decoder_upconv{i}"))
        return self._up(x, "decoder_image") + 0.5 if is_residual else torch.sigmoid(self._conv(x, "decoder_image"))

    def forward(self, pixels, codebook):
        """Reconstruction loss, codebook loss, commitment loss, latent rows and codes."""
        z_e = self.encode(pixels)
        rows = z_e.permute(0, 2, 3, 1).reshape(-1, codebook.shape[1])
        with torch.no_grad():
            codes = torch.addmm((codebook**2).sum(1), rows, codebook.t(), alpha=-2).argmin(1)
        size = (z_e.shape[0], z_e.shape[2], z_e.shape[3], -1)
        chosen = F.embedding(codes, codebook).reshape(size).permute(0, 3, 1, 2)
        reconstruction = self.decode(z_e + (chosen - z_e).detach())
        losses = F.mse_loss(reconstruction, pixels), F.mse_loss(chosen, z_e.detach()), F.mse_loss(z_e, chosen.detach())
        return (*losses, rows.detach(), codes)


class TorchLearner:
    """What moves it: Adam, and the codebook by its loss or as a moving average (model/quantizer.py)."""

    def __init__(self, config: Config, arrays: dict[str, np.ndarray], way: str):
        self._config = config
        self._layout: Any = torch.contiguous_format if way == "torch" else torch.channels_last
        self._network = Network(config, arrays).to(memory_format=self._layout)
        self._averages = config.model.quantizer == "ema"
        self._codebook = torch.nn.Parameter(torch.tensor(arrays["model/quantizer_codebook"]), not self._averages)
        self._state = [torch.zeros(len(self._codebook)), torch.zeros_like(self._codebook.data), torch.zeros(1)]
        self._forward: Any = torch.compile(self._network, dynamic=False) if way == "torch-compile" else self._network
        self._optimizer = torch.optim.Adam(self.trained(), lr=config.training.learning_rate)

    def trained(self) -> list[torch.nn.Parameter]:
        return [*self._network.parameters(), *([] if self._averages else [self._codebook])]

    def step(self, images: np.ndarray) -> float:
        """The loss of a batch, uint8 (N, H, W, C), from which it learns."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).contiguous(memory_format=self._layout)
        mse, codebook_loss, commitment_loss, rows, codes = self._forward(pixels / 255, self._codebook)
        loss = self._config.training.reconstruction_weight * mse + self._config.model.commitment_cost * commitment_loss
        if not self._averages:
            loss = loss + codebook_loss
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        if self._averages:
            self._average(rows, codes)
        return float(loss.item())

    @torch.no_grad()
    def _average(self, rows, codes) -> None:
        model = self._config.model
        counts = torch.bincount(codes, minlength=len(self._codebook)).to(torch.float32)
        sums = torch.zeros_like(self._codebook).index_add_(0, codes, rows)
        for average, value in zip(self._state, (counts, sums, torch.ones(1))):
            average.lerp_(value, 1 - model.decay)
        (all_counts, all_sums, weight), count = self._state, len(self._codebook)
        uses = all_counts / weight
        smoothed = (uses + model.epsilon) / (uses.sum() + count * model.epsilon) * uses.sum()
        self._codebook.copy_(all_sums / weight / smoothed[:, None])
        dead = torch.nonzero(uses < model.restart_below * uses.mean()).flatten()
        if len(dead):
            drawn = rows[torch.randperm(len(rows))[: len(dead)]]
            dead = dead[: len(drawn)]
            self._codebook[dead] = drawn
            all_counts[dead] = weight * uses.mean()
            all_sums[dead] = weight * uses.mean() * drawn
