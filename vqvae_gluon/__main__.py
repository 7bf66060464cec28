"""``python -m vqvae_gluon``."""

import sys

from vqvae_gluon.cli import main

sys.exit(main())
