"""How one tensor was made of another: the simplest named change that is proved by replaying it.

Names of causes are those of :mod:`vqvae_gluon.parity.causes`. The files, each knowing those above it:

    relation              what is found, and the measures that all share
    places, values        changes of places and of values
    search                screen, fit, replay: which of them made theirs of ours
    filters               other resize filters
    images, codes         the questions about what is fed, and about codes and latents
    drawings, parameters  those about pictures, and about parameters
"""

from vqvae_gluon.parity.relations.codes import relate_codes, relate_latent
from vqvae_gluon.parity.relations.drawings import relate_drawing
from vqvae_gluon.parity.relations.images import relate_images, relate_pixels
from vqvae_gluon.parity.relations.parameters import parameter_changes, relate_parameter, storages
from vqvae_gluon.parity.relations.relation import Relation

__all__ = [
    "Relation",
    "parameter_changes",
    "relate_codes",
    "relate_drawing",
    "relate_images",
    "relate_latent",
    "relate_parameter",
    "relate_pixels",
    "storages",
]
