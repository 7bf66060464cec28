"""Vector quantization with a codebook loss (van den Oord et al. 2017, arXiv:1711.00937, equations 1 to 3)."""

from vqvae_gluon.compat import mx


class NearestCode(mx.gluon.HybridBlock):
    """Index of the nearest codebook row for every latent pixel (equation 1).

    ``argmin_k |z - e_k|^2`` is ``argmin_k |e_k|^2 - 2 z.e_k``, and that is a 1x1 convolution: one oneDNN call, and no
    reshape that could bake in a batch size.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, **kwargs):
        super().__init__(**kwargs)
        self._size = (num_embeddings, embedding_dim)
        self.codebook = self.params.get("codebook", shape=self._size)

    def hybrid_forward(self, F, z_e, codebook):
        """float32 (N, D, h, w) to int32 (N, h, w)."""
        kernel = F.reshape(codebook * -2.0, shape=(*self._size, 1, 1), name="kernel")
        norms = F.sum(F.square(codebook), axis=1, name="norms")
        distances = F.Convolution(z_e, kernel, norms, kernel=(1, 1), num_filter=self._size[0], name="distances")
        return F.cast(F.argmin(distances, axis=1, name="argmin"), dtype="int32", name="codes")


class Lookup(mx.gluon.HybridBlock):
    """Codebook rows of the codes."""

    def __init__(self, num_embeddings: int, embedding_dim: int, **kwargs):
        super().__init__(**kwargs)
        self._size = (num_embeddings, embedding_dim)
        self.codebook = self.params.get("codebook", shape=self._size)

    def hybrid_forward(self, F, codes, codebook):
        """int32 (N, h, w), each in 0..K-1, to float32 (N, D, h, w)."""
        rows = F.Embedding(codes, codebook, input_dim=self._size[0], output_dim=self._size[1], name="rows")
        return F.transpose(rows, axes=(0, 3, 1, 2), name="latent")


class VectorQuantizer(mx.gluon.HybridBlock):
    """Replaces every latent pixel by its nearest codebook row.

    The straight-through estimator hands the decoder's gradient to the encoder unchanged (section 3.2). It is written
    ``sg(e) + (z_e - sg(z_e))``: the bracket is exactly zero, so the forward value is exactly ``e``.

    Args:
        num_embeddings: K.
        embedding_dim: D.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, **kwargs):
        super().__init__(**kwargs)
        # Wide enough that the first latents find different rows, near enough that they find many of them.
        self.codebook = self.params.get("codebook", shape=(num_embeddings, embedding_dim), init=mx.init.Uniform(0.25))
        shared = {"prefix": self.prefix, "params": self.params}
        self.nearest = NearestCode(num_embeddings, embedding_dim, **shared)
        self.lookup = Lookup(num_embeddings, embedding_dim, **shared)

    def hybrid_forward(self, F, z_e, codebook):
        """Quantize.

        Args:
            z_e: float32 (N, D, h, w).

        Returns:
            z_q float32 (N, D, h, w), codes int32 (N, h, w), codebook loss (1,) and commitment loss (1,). The codebook
            loss ``mean |sg(z_e) - e|^2`` moves only the codebook, the commitment loss ``mean |z_e - sg(e)|^2`` only
            the encoder.
        """
        codes = F.stop_gradient(self.nearest(z_e))
        rows = self.lookup(codes)
        codebook_loss = F.mean(F.square(rows - F.stop_gradient(z_e)))
        commitment_loss = F.mean(F.square(z_e - F.stop_gradient(rows)))
        z_q = F.stop_gradient(rows) + (z_e - F.stop_gradient(z_e))
        return z_q, codes, codebook_loss, commitment_loss
