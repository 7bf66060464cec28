"""The earlier project, replayed: what docs/root-cause.md tells. Nothing of it is part of the product."""
