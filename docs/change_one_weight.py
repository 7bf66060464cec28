"""Copy a bundle and change one weight of its latent layer: a deployment gone wrong, for the README."""

import shutil
import sys

from vqvae_gluon.compat import mx

source, target = sys.argv[1:]
shutil.copytree(source, target, dirs_exist_ok=True)
path = f"{target}/encoder-0000.params"
parameters = mx.nd.load(path)
parameters["arg:encoder_latent_weight"][3, 5, 0, 0] += 0.5
mx.nd.save(path, parameters)
