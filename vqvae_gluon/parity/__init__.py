"""The judgement of two runtimes: preflight, comparison, arbiter, localisation, report."""

from vqvae_gluon.parity.harness import compare, compare_bundles, compare_exports

__all__ = ["compare", "compare_bundles", "compare_exports"]
