"""Vector quantization (van den Oord et al. 2017, arXiv:1711.00937): one codebook, learned in either of two ways.

Both quantizers are called in the same way and give the same things; :func:`make_quantizer` makes the one that a config
names. All of it is float32, whatever surrounds it.
"""

from typing import Any, Callable

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.config import ModelConfig
from vqvae_gluon.model.layers import mean_square


class _Single(mx.gluon.HybridBlock):
    """A block that stays float32 when the network around it is cast: half precision cannot tell near rows apart."""

    _around = "float32"  # type of the network around it

    def cast(self, dtype) -> None:
        self._around = dtype
        self._clear_cached_op()

    def _from_around(self, F, x):
        return x if self._around == "float32" else F.cast(x, dtype="float32")

    def _to_around(self, F, x):
        return x if self._around == "float32" else F.cast(x, dtype=self._around)


class _Rows(_Single):
    """What reads the codebook (K, D); with ``cosine`` each of its rows is taken at length 1."""

    def __init__(self, num_embeddings: int, embedding_dim: int, cosine: bool, **kwargs):
        super().__init__(**kwargs)
        self._size = (num_embeddings, embedding_dim)
        self._cosine = cosine
        self.codebook = self.params.get("codebook", shape=self._size)

    def _rows(self, F, codebook):
        return F.L2Normalization(codebook, mode="instance", name="directions") if self._cosine else codebook


class NearestCode(_Rows):
    """Index of the nearest codebook row for every latent pixel (equation 1).

    ``argmin_k |z - e_k|^2`` is ``argmin_k |e_k|^2 - 2 z.e_k``, and that is a 1x1 convolution: one oneDNN call, and no
    reshape that could bake in a batch size. Of rows of length 1 it is the one with the greatest cosine, so that the
    length of z does not matter.
    """

    def hybrid_forward(self, F, z_e, codebook):
        """float32 (N, D, h, w) to int32 (N, h, w)."""
        z_e, rows = self._from_around(F, z_e), self._rows(F, codebook)
        kernel = F.reshape(rows * -2.0, shape=(*self._size, 1, 1), name="kernel")
        norms = F.sum(F.square(rows), axis=1, name="norms")
        distances = F.Convolution(z_e, kernel, norms, kernel=(1, 1), num_filter=self._size[0], name="distances")
        return F.cast(F.argmin(distances, axis=1, name="argmin"), dtype="int32", name="codes")


class Lookup(_Rows):
    """Codebook rows of the codes."""

    def hybrid_forward(self, F, codes, codebook):
        """int32 (N, h, w), each in 0..K-1, to float32 (N, D, h, w)."""
        rows = self._rows(F, codebook)
        rows = F.Embedding(codes, rows, input_dim=self._size[0], output_dim=self._size[1], name="rows")
        return self._to_around(F, F.transpose(rows, axes=(0, 3, 1, 2), name="latent"))


class VectorQuantizer(_Single):
    """Replaces every latent pixel by its nearest codebook row, which a loss pulls towards it (equation 3).

    The straight-through estimator hands the decoder's gradient to the encoder unchanged (section 3.2). It is written
    ``sg(e) + (z_e - sg(z_e))``: the bracket is exactly zero, so the forward value is exactly ``e``.

    Args:
        config: K, D, and ``cosine``: latents and rows are taken at length 1 (Yu et al. 2022, arXiv:2110.04627,
            section 3.2).

    Attributes:
        state: what it remembers from batch to batch beside its parameters, by name.
    """

    _codebook_gradient = "write"
    state: dict[str, np.ndarray]

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(**kwargs)
        size = (config.num_embeddings, config.embedding_dim)
        self._cosine = config.cosine
        self.state = {}
        # Wide enough that the first latents find different rows, near enough that they find many of them.
        self.codebook = self.params.get(
            "codebook", shape=size, init=mx.init.Uniform(0.25), grad_req=self._codebook_gradient
        )
        shared = {"prefix": self.prefix, "params": self.params}
        self.nearest = NearestCode(*size, config.cosine, **shared)
        self.lookup = Lookup(*size, config.cosine, **shared)

    def hybrid_forward(self, F, z_e, codebook):
        """Quantize.

        Args:
            z_e: (N, D, h, w), float32 or what the network is cast to.

        Returns:
            z_q (N, D, h, w) of the same type, codes int32 (N, h, w), codebook loss (1,) and commitment loss (1,),
            float32. The codebook loss ``mean |sg(z_e) - e|^2`` moves only the codebook, the commitment loss
            ``mean |z_e - sg(e)|^2`` only the encoder.
        """
        z_e = self._from_around(F, z_e)
        if self._cosine:
            z_e = F.L2Normalization(z_e, mode="channel")
        codes = self.nearest.hybrid_forward(F, F.stop_gradient(z_e), F.stop_gradient(codebook))
        rows = self.lookup(codes)
        codebook_loss = self._codebook_loss(F, rows, z_e)
        commitment_loss = mean_square(F, z_e - F.stop_gradient(rows))
        z_q = F.stop_gradient(rows) + (z_e - F.stop_gradient(z_e))
        return self._to_around(F, z_q), codes, codebook_loss, commitment_loss

    def _codebook_loss(self, F, rows, z_e):
        return mean_square(F, rows - F.stop_gradient(z_e))

    def rows_of(self, z_e) -> Any:
        """Latents (N, D, h, w) as the rows that the codebook is made of: float32 (N*h*w, D), with ``cosine`` of length
        1."""
        z_e = z_e.astype("float32", copy=False)
        if self._cosine:
            z_e = mx.nd.L2Normalization(z_e, mode="channel")
        return mx.nd.reshape(mx.nd.transpose(z_e, (0, 2, 3, 1)), (-3, -2)).reshape((-1, z_e.shape[1]))

    def start(self, rows: np.ndarray, counts: np.ndarray) -> None:
        """Take these rows for the codebook.

        Args:
            rows: float32 (K, D).
            counts: (K,), how often a batch is expected to use each.
        """
        self.codebook.set_data(mx.nd.array(rows))

    def statistics(self, z_e, codes) -> np.ndarray:
        """What :meth:`update` wants of a batch, as one vector that may be summed over the parts of a batch."""
        return np.zeros(0, dtype=np.float32)

    def update(self, statistics: np.ndarray, draw: Callable[[int], np.ndarray]) -> int:
        """Move the codebook, after the optimizer has moved everything else.

        Args:
            statistics: of the whole batch.
            draw: gives (n, D), n latents of this batch.

        Returns:
            How many rows were restarted.
        """
        return 0


class VectorQuantizerEMA(VectorQuantizer):
    """Replaces every latent pixel by its nearest codebook row, which is a moving average of the latents that chose it
    (appendix A.1).

    With n_k the number of latents that choose row k in a batch and s_k their sum, for every batch::

        N_k <- decay N_k + (1 - decay) n_k
        S_k <- decay S_k + (1 - decay) s_k
        w   <- decay w   + (1 - decay)
        c_k  = N_k / w,  m_k = S_k / w,  C = sum_k c_k
        e_k  = m_k / ((c_k + epsilon) / (C + K epsilon) C)

    All begin at 0, and w takes that beginning out of the averages (the bias correction of Kingma and Ba 2015, section
    3). The last line is Laplace smoothing: a row that is never chosen divides by epsilon, not by zero.

    A row is dead when c_k falls below ``restart_below`` times C / K, the use of the average row. It restarts at a
    latent z of the batch, as if it had been used like the average row until now: e_k = z, N_k = w C / K, S_k = N_k z.
    """

    _codebook_gradient = "null"

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(config, **kwargs)
        self._decay, self._epsilon, self._restart_below = config.decay, config.epsilon, config.restart_below
        size = (config.num_embeddings, config.embedding_dim)
        self.state = {"counts": np.zeros(size[0]), "sums": np.zeros(size), "weight": np.zeros(1)}

    def _codebook_loss(self, F, rows, z_e):
        return F.zeros((1,))

    def start(self, rows: np.ndarray, counts: np.ndarray) -> None:
        super().start(rows, counts)
        self.state = {"counts": counts * 1.0, "sums": rows * counts[:, None], "weight": np.ones(1)}

    def statistics(self, z_e, codes) -> np.ndarray:
        rows, codes = self.rows_of(z_e).asnumpy(), codes.asnumpy().ravel()
        order = np.argsort(codes, kind="stable")
        used, begins = np.unique(codes[order], return_index=True)
        sums = np.zeros(self.codebook.shape, dtype=np.float32)
        sums[used] = np.add.reduceat(rows[order], begins, axis=0)
        return np.concatenate([np.bincount(codes, minlength=len(sums)).astype(np.float32), sums.ravel()])

    def update(self, statistics: np.ndarray, draw: Callable[[int], np.ndarray]) -> int:
        count, dim = self.codebook.shape
        batch = {"counts": statistics[:count], "sums": statistics[count:].reshape(count, dim), "weight": np.ones(1)}
        state = {name: self._decay * old + (1 - self._decay) * batch[name] for name, old in self.state.items()}
        uses = state["counts"] / state["weight"]
        smoothed = (uses + self._epsilon) / (uses.sum() + count * self._epsilon) * uses.sum()
        rows = state["sums"] / state["weight"] / smoothed[:, None]
        if self._cosine:  # A row that was never chosen has no direction; 0 would be near to all that no row is near to.
            rows = np.where(state["counts"][:, None] > 0, rows, self.codebook.data().asnumpy())
        dead = np.flatnonzero(uses < self._restart_below * uses.mean())
        if len(dead):
            rows[dead] = draw(len(dead))
            state["counts"][dead] = state["weight"] * uses.mean()
            state["sums"][dead] = state["weight"] * uses.mean() * rows[dead]
        self.state = state
        self.codebook.set_data(mx.nd.array(rows))
        return len(dead)


_QUANTIZERS = {"codebook-loss": VectorQuantizer, "ema": VectorQuantizerEMA}


def make_quantizer(config: ModelConfig, **kwargs) -> VectorQuantizer:
    """The quantizer that a config names."""
    return _QUANTIZERS[config.quantizer](config, **kwargs)
