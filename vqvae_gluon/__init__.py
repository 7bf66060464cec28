"""A VQ-VAE in MXNet Gluon, its C++ predictor, and the proof that the two agree."""

__version__ = "0.1.0"
