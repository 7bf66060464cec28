"""Sound and damaged checkpoints of a small network; the table of what they hold is written out here once more."""

import hashlib
import json
import re
import struct
from random import Random
from typing import Any

from mutate.document import damage_value, dump, paths_of
from mutate.raw import Mutated
from mutate.zips import damage_members, members_of, npy_bytes, zip_bytes

_PARAMETERS = {
    "encoder_conv0_weight": (2, 1, 3, 3),
    "encoder_conv0_bias": (2,),
    "encoder_conv1_weight": (3, 2, 3, 3),
    "encoder_conv1_bias": (3,),
    "encoder_latent_weight": (2, 3, 1, 1),
    "encoder_latent_bias": (2,),
    "quantizer_codebook": (4, 2),
    "decoder_upconv0_weight": (2, 3, 4, 4),
    "decoder_upconv0_bias": (3,),
    "decoder_upconv1_weight": (3, 2, 4, 4),
    "decoder_upconv1_bias": (2,),
    "decoder_image_weight": (1, 2, 3, 3),
    "decoder_image_bias": (1,),
}
_STATE = {"counts": (4,), "sums": (4, 2), "weight": (1,)}
_NPY = re.compile(rb".{10}\{'descr': '([^']*)', 'fortran_order': False, 'shape': (\([^)]*\)), \} *\n", re.DOTALL)
_LOSSES = ("loss", "mse", "codebook_loss", "commitment_loss")
_MEASURES = ("loss", "mse", "normalised_mse", "psnr", "ssim", "perplexity", "codes_used", "bits_per_dimension")


def _header(seed: int) -> dict[str, Any]:
    model = {"image_channels": 1, "hidden_channels": [2, 3], "embedding_dim": 2, "num_embeddings": 4}
    model.update(commitment_cost=0.25, residual_blocks=0, residual_channels=0, quantizer="ema", decay=0.99)
    model.update(epsilon=1e-5, restart_below=0.05, cosine=False)
    training = {"data": "images", "epochs": 2, "batch_size": 2, "learning_rate": 1e-3, "reconstruction_weight": 1.0}
    training.update(validation_images=2, seed=seed, steps=0, schedule="cosine", warmup_steps=0, decay_steps=0)
    training.update(clip_norm=0.0, patience=0, mean_start=True, kmeans_images=0, flip=False, shift=0, image_size=0)
    rows: list[dict[str, float]] = [{"epoch": epoch, "step": 60 * epoch, "restarted": 1} for epoch in (1, 2)]
    for row in rows:
        row.update(dict.fromkeys(("learning_rate", "seconds", "images_per_second"), 0.5))
        row.update({f"train_{name}": 0.5 for name in (*_LOSSES, "perplexity", "batch_perplexity")})
        row.update({f"{part}_{name}": 2 for part in ("validation", "test") for name in _MEASURES})
    step = dict.fromkeys((*_LOSSES, "perplexity", "gradient_norm", "restarted", "normalised_mse", "learning_rate"), 0.5)
    progress = {"epoch": 2, "position": 0, "step": 120, "sums": [], "counts": [], "recent": [0.5] * 7, "seconds": 0.0}
    progress.update(history=rows, steps=[{"step": 100, **step}])
    data = {"name": "images", "sha256": hashlib.sha256(str(seed).encode()).hexdigest()}
    return {"config": {"model": model, "training": training}, "data": data, "progress": progress}


def checkpoint_bytes(seed: int) -> bytes:
    """A checkpoint, of arrays from a seed."""
    random = Random(f"checkpoint {seed}")

    def array(descr: str, shape: tuple[int, ...]) -> bytes:
        count = 1
        for extent in shape:
            count *= extent
        form = {"<f4": "f", "<f8": "d"}[descr]
        return npy_bytes(descr, shape, struct.pack(f"<{count}{form}", *(random.random() for _ in range(count))))

    members = [(f"model/{name}.npy", array("<f4", shape)) for name, shape in _PARAMETERS.items()]
    for index, name in enumerate(sorted(_PARAMETERS)):
        if name != "quantizer_codebook":  # It is a moving average.
            members += [
                (f"adam/{index}/{which}.npy", array("<f4", _PARAMETERS[name])) for which in ("mean", "variance")
            ]
    members += [(f"quantizer/{name}.npy", array("<f8", shape)) for name, shape in _STATE.items()]
    return zip_bytes(_signed(json.dumps(_header(seed)).encode(), members))


def _signed(text: bytes, members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The members of a checkpoint, with the digest of its JSON text and of its arrays."""
    state = hashlib.sha256(text)
    for name, content in sorted((name.removesuffix(".npy"), content) for name, content in members):
        found = re.match(
            rb".{10}\{'descr': '([^']*)', 'fortran_order': False, 'shape': (\([^)]*\)), \} *\n", content, re.S
        )
        if found:
            state.update(f"{name} {found[1].decode()} {found[2].decode()}\n".encode())
            state.update(content[found.end() :])
    header = [
        ("checkpoint.npy", npy_bytes("|u1", (len(text),), text)),
        ("sha256.npy", npy_bytes("|u1", (32,), state.digest())),
    ]
    return header + members


def damage_checkpoint(data: bytes, random: Random) -> Mutated:
    """Damage what a checkpoint holds; its digest fits."""
    members = members_of(data)
    text, arrays = members[0][1][members[0][1].index(b"\n") + 1 :], members[2:]
    if random.random() < 0.6:
        document = json.loads(text)
        what, text = "checkpoint: " + damage_value(document, random, paths_of(document)), dump(document)
    else:
        what, changed = damage_members(zip_bytes(arrays), zip_bytes(arrays), random)
        if " bomb" in what or " many" in what:
            return what, changed
        arrays = members_of(changed)
    return what, zip_bytes(_signed(text, arrays))
