"""The judgement of two runtimes: preflight, comparison, arbiter, localisation, report."""

from vqvae_gluon.parity.harness import compare_bundles, compare_exports
from vqvae_gluon.parity.live import compare

__all__ = ["compare", "compare_bundles", "compare_exports"]
