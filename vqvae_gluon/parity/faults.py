"""The kinds of fault, and where each is planted: first, middle and last in every specimen that can have it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Optional

import numpy as np
import PIL.Image

from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.data.images import to_images
from vqvae_gluon.parity import changes, plant
from vqvae_gluon.parity.plant import Change, Plant, both, deeds
from vqvae_gluon.parity.sites import KERNELS, Layer, Site, spread
from vqvae_gluon.parity.specimens import Specimen, resized
from vqvae_gluon.parity.stages import GRAPH
from vqvae_gluon.runtimes.base import DECODER

TAMPERED = "tampered"  # Not one of the runtimes that there are, but one that computes wrongly.


@dataclass(frozen=True)
class Case:
    """One planted fault.

    Attributes:
        kind: of fault.
        model: name of the specimen.
        layer: where it is planted, in words.
        node: ``stage/name`` of the tensor at which it first acts.
        cause: the name that it should be given (causes.py).
        plant: changes a program that was right.
        live: runtime that runs the altered files, or ``tampered``, and that is judged itself; None where the program
            leaves a trace.
    """

    kind: str
    model: str
    layer: str
    node: str
    cause: str
    plant: Plant
    live: Optional[str] = None

    @property
    def name(self) -> str:
        return f"{self.model}: {self.kind}: {self.layer}"


def cases(specimen: Specimen) -> list[Case]:
    """Every fault that is planted in a specimen."""
    site = Site(specimen)
    groups = (_of_input, _of_parameters, _of_all_parameters, _of_codebook, _of_graph, _of_training, _of_codes, _of_run)
    return [case for group in (*groups, _of_output, _of_two, _of_live_files) for case in group(site)]


def _is_in_file(number: int) -> bool:
    """Faults are in memory and in the file by turns."""
    return number % 2 == 0


def _where(place: object, in_file: bool) -> str:
    return f"{place}, in {'the file' if in_file else 'memory'}"


# What the network is fed.


def _of_input(site: Site) -> Iterator[Case]:
    colour, unit = site.channels == 3, site.specimen.unit
    top = 255 * unit

    def misread(kind: str, cause: str, change: Change, how: str = "") -> Case:
        layer = f"pixels, {how}" if how else "pixels"
        return Case(kind, site.specimen.name, layer, site.input(True), cause, deeds(misread=change))

    def feed(kind: str, cause: str, change: Change, how: str = "") -> Case:
        layer = f"input tensor, {how}" if how else "input tensor"
        return Case(kind, site.specimen.name, layer, site.input(False), cause, deeds(feed=change))

    if colour:
        yield misread("channel order", "channel order", lambda x: x[..., ::-1])
        yield feed("HWC read as CHW", "HWC read as CHW", changes.hwc_as_chw)
        yield feed("column-major input", "column-major input", changes.column_major)
    else:  # Of a gray image, the first two are the image itself, and the third is the transposed one.
        yield misread("pixel stride", "pixel stride", partial(changes.strided, pixel=3), "28j+3k")
    yield misread("pixel stride", "pixel stride", partial(changes.strided, pixel=4 if colour else 2), "too wide")
    yield misread("row stride", "pixel stride", partial(changes.strided, row=4), "rows padded")
    yield misread("transposed input", "transposed input", lambda x: x.transpose(0, 2, 1, 3))
    yield misread("flipped input", "flipped input", lambda x: x[:, ::-1], "upside down")
    yield misread("flipped input", "flipped input", lambda x: x[:, :, ::-1], "left to right")
    yield misread("shifted by a pixel", "shifted by a pixel", partial(changes.shifted, axis=1), "a row down")
    yield misread("shifted by a pixel", "shifted by a pixel", partial(changes.shifted, axis=2), "a column right")
    for method in ("NEAREST", "BILINEAR"):
        yield misread("resize filter", "resize filter", partial(_resized_otherwise, site, method), method)
    yield misread("resize filter", "resize filter", _resized_twice, "by way of another size")
    yield misread("alpha", "alpha", partial(changes.blended, background=255), "blended onto white")
    yield misread("gamma", "gamma", partial(changes.powered, exponent=2.2), "to linear")
    yield misread("gamma", "gamma", partial(changes.powered, exponent=1 / 2.2), "to sRGB")
    yield misread("inverted", "inverted", lambda x: 255 - x)
    yield feed("inverted", "inverted", lambda x: np.float32(top) - x)
    yield feed("scale x255", "scale", lambda x: x * np.float32(255))
    yield feed("scale /255", "scale", lambda x: x / np.float32(255))
    yield feed("scale to [-1,1]", "scale", lambda x: x / np.float32(top / 2) - 1)
    yield feed("mean and standard deviation", "mean and standard deviation", partial(changes.normalised, unit=unit))
    yield feed("signed pixels", "signed pixels", partial(changes.signed, unit=unit))
    yield feed("input not set", "input not set", np.zeros_like, "zeros")
    yield feed("input not set", "input not set", changes.unwritten, "what was there before")
    yield feed("input buffer too short", "reading past a buffer", partial(changes.cut_short, share=0.25))


def _resized_otherwise(site: Site, method: str, images: np.ndarray) -> np.ndarray:
    return resized(site.specimen.originals, images.shape[1], PIL.Image.Resampling[method])


def _resized_twice(images: np.ndarray) -> np.ndarray:
    bilinear, side = PIL.Image.Resampling.BILINEAR, images.shape[1]
    return resized(resized(images, side * 3 // 2, bilinear), side, bilinear)


# The parameters as the network has them.


def _of_parameters(site: Site) -> Iterator[Case]:
    model = site.specimen.name

    def changed(kind: str, cause: str, layer: Layer, change: Change, number: int, told: str = "") -> Case:
        in_file = _is_in_file(number)
        ruined = plant.changed([layer.stage], [layer.weight], change, in_file)
        return Case(kind, model, _where(f"{layer}{told}", in_file), layer.key, cause, ruined)

    fills: list[tuple[str, Change]] = [
        ("zeros", np.zeros_like),
        ("noise", changes.noise),
        ("uninitialised", changes.unwritten),
    ]
    for number, layer in enumerate(site.kernels()):
        for offset, (fill, change) in enumerate(fills):
            lacking = _is_in_file(number + offset)
            layer_words = f"{layer}, {'the file lacks it' if lacking else 'the file is right'}"
            unbound = plant.unbound(layer.stage, layer.weight, change, lacking)
            yield Case(f"argument unbound: {fill}", model, layer_words, layer.key, "argument unbound", unbound)
        for in_file, (told, bit) in zip(
            (_is_in_file(number), not _is_in_file(number)), (("exponent", 26), ("sign", 31))
        ):
            flipped = plant.bit_flipped(layer.stage, layer.node, layer.weight, bit, in_file)
            kind = "one corrupted value"
            yield Case(kind, model, _where(f"{layer}, its {told}", in_file), layer.key, kind, flipped)
        yield changed("parameter read too late", "reading past a buffer", layer, changes.one_late, number)
        yield changed("kernel layout", "kernel transposed", layer, changes.hwio, number)
    for number, layer in enumerate(site.kernels(lambda values: values.ndim == 4 and values.shape[2] > 1)):
        yield changed("kernel transposed", "kernel transposed", layer, lambda x: x.swapaxes(2, 3), number)
        yield changed("kernel flipped", "kernel flipped", layer, lambda x: x[:, :, ::-1, ::-1], number)
    for number, layer in enumerate(site.kernels(lambda values: values.shape[0] == values.shape[1])):
        yield changed("kernel channels exchanged", "kernel transposed", layer, lambda x: x.swapaxes(0, 1), number)
    for number, layer in enumerate(site.operators("BatchNorm")):
        states = [f"aux:{source}" for source, _ in layer.node.inputs[3:5]]
        for offset, (fill, change) in enumerate(fills[:2]):
            in_file = _is_in_file(number + offset)
            layer_words = f"{layer}, {'the file has them as arguments' if in_file else 'the file is right'}"
            misplaced = plant.misplaced(layer.stage, states, change, in_file)
            yield Case(f"auxiliary unbound: {fill}", model, layer_words, layer.key, "auxiliary unbound", misplaced)
    yield from _swapped(site)


def _swapped(site: Site) -> Iterator[Case]:
    """Two neighbours of one shape, as they are when parameters are bound by position."""
    pairs = []
    for stage, network in site.networks.items():
        taken = [source for node in network.graph.operators() for source, _ in node.inputs]
        names = sorted(network.parameters, key=lambda name: taken.index(name[4:]))
        kinds = {name: (name[:4], network.parameters[name].shape) for name in names}
        for i, name in enumerate(names):
            alike = [other for other in names[i + 1 :] if kinds[other] == kinds[name]]
            pairs += [(stage, name, alike[0])] if alike else []
    for number, (place, (stage, one, other)) in enumerate(spread(pairs)):
        in_file = _is_in_file(number)
        layer = _where(f"{place}, {one[4:]} and {other[4:]}", in_file)
        node = site.first_consumer({stage: [one, other]})
        swapped = plant.swapped(stage, one, other, in_file)
        yield Case("parameters swapped", site.specimen.name, layer, node, "parameters swapped", swapped)


def _of_all_parameters(site: Site) -> Iterator[Case]:
    """All parameters, or those of one half or one layer, as another type or of another time."""
    model = site.specimen.name
    storages: list[tuple[str, Change]] = [("float16 storage", changes.float16), ("bfloat16 storage", changes.bfloat16)]
    for kind, change in storages:
        for in_file in (True, False):
            node = site.first_consumer(_touched(site, change))
            yield Case(
                kind, model, _where("all", in_file), node, kind, plant.changed(site.stages, None, change, in_file)
            )
        for number, layer in enumerate(site.kernels()):
            in_file = _is_in_file(number + 1)
            rounded = plant.changed([layer.stage], [layer.weight], change, in_file)
            yield Case(kind, model, _where(layer, in_file), layer.key, kind, rounded)
    for stages in [site.stages, site.stages[1:]] if site.is_bundle else [site.stages]:
        node = site.first_consumer({stage: list(site.networks[stage].parameters) for stage in stages})
        told = "all" if stages == site.stages else stages[0]
        for in_file in (True, False):
            moved = plant.changed(stages, None, changes.another_epoch, in_file)
            kind = "parameters of another epoch"
            yield Case(kind, model, _where(told, in_file), node, kind, moved)
    for stages in [site.stages, *([stage] for stage in site.stages[1:]), site.stages[:1]][: 3 if site.is_bundle else 1]:
        node = site.first_consumer({stage: list(site.networks[stage].parameters) for stage in stages})
        lost = plant.without_prefixes(stages, changes.noise)
        yield Case("prefix lost", model, " and ".join(stages), node, "prefix lost", lost)


def _touched(site: Site, change: Change) -> dict[str, list[str]]:
    """Parameters, by stage, in which a change changes anything."""
    return {
        stage: [name for name, values in network.parameters.items() if not np.array_equal(change(values), values)]
        for stage, network in site.networks.items()
    }


def _of_codebook(site: Site) -> Iterator[Case]:
    model = site.specimen.name
    books = [(stage, name) for stage in site.stages for name in site.networks[stage].parameters]
    for stage, name in [(stage, name) for stage, name in books if name.endswith("codebook")]:
        node = site.first_consumer({stage: [name]})
        fills: list[tuple[str, Change]] = [("zeros", np.zeros_like), ("noise", changes.noise)]
        for fill, change in fills:
            for lacking in (True, False):
                layer = f"{stage}, {'the file lacks it' if lacking else 'the file is right'}"
                unbound = plant.unbound(stage, name, change, lacking)
                yield Case(f"codebook unbound: {fill}", model, layer, node, "codebook unbound", unbound)
        for in_file in (True, False) if site.is_bundle else ():  # Permuted in both halves it is the same network.
            permuted = plant.changed([stage], [name], changes.permuted, in_file)
            kind = "codebook rows permuted"
            yield Case(kind, model, _where(stage, in_file), node, kind, permuted)


# The graph as it is run.


def _of_graph(site: Site) -> Iterator[Case]:
    model, shape, attribute = site.specimen.name, "padding or output shape", "operator attribute"

    def altered(
        kind: str, cause: str, layers: list[Layer], attributes: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Iterator[Case]:
        for number, layer in enumerate(layers):
            in_file = _is_in_file(number)
            change = plant.altered(layer.stage, layer.node.name, attributes(layer.node.attributes), in_file)
            yield Case(kind, model, _where(layer, in_file), layer.key, cause, change)

    def has(operator: str, **attributes: str) -> list[Layer]:
        return site.layers(lambda node: node.operator == operator and attributes.items() <= node.attributes.items())

    wide = site.layers(lambda node: node.operator == "Convolution" and node.attributes["kernel"] != "(1, 1)")
    yield from altered("eps", "eps", site.operators("BatchNorm"), lambda old: {"eps": "0.001"})
    yield from altered("fix_gamma", "fix_gamma", site.operators("BatchNorm"), lambda old: {"fix_gamma": "True"})
    same_shape = {"pad": "(2, 2)", "dilate": "(2, 2)"}
    yield from altered("padding", shape, has("Convolution", kernel="(3, 3)", pad="(1, 1)"), lambda old: same_shape)
    yield from altered("output shape", shape, wide, lambda old: {"pad": _wider(old["pad"])})
    yield from altered("deconvolution", shape, site.operators("Deconvolution"), lambda old: {"adj": "(1, 1)"})
    maxima, averages = has("Pooling", pool_type="max"), has("Pooling", pool_type="avg")
    yield from altered("pooling convention", shape, maxima, lambda old: {"pooling_convention": "valid"})
    yield from altered("pool type", attribute, maxima, lambda old: {"pool_type": "avg"})
    yield from altered("pool type", attribute, averages, lambda old: {"pool_type": "max"})
    padded = has("Pooling", pool_type="avg", pad="(1, 1)")
    yield from altered("count_include_pad", shape, padded, lambda old: {"count_include_pad": "False"})
    activations = site.operators("Activation")
    yield from altered("another activation", attribute, activations, lambda old: {"act_type": _OTHER[old["act_type"]]})
    for number, layer in enumerate(activations):
        in_file = _is_in_file(number)
        where, key, cause = _where(layer, in_file), (layer.stage, layer.node.name), "other operator"
        yield Case("activation lost", model, where, layer.key, cause, plant.left_out(*key, in_file))
        yield Case("activation is a copy", model, where, layer.key, cause, plant.altered(*key, {}, in_file, "_copy"))


_OTHER = {"relu": "softrelu", "tanh": "sigmoid", "sigmoid": "tanh"}


def _wider(pad: str) -> str:
    return str(tuple(int(extent) + 1 for extent in pad.strip("()").split(",")))


def _of_training(site: Site) -> Iterator[Case]:
    """Networks that are run as they are trained: all of it, one BatchNorm, or one Dropout."""
    model, norms = site.specimen.name, site.operators("BatchNorm")
    cause = "training-mode BatchNorm"
    if norms:
        yield Case(cause, model, "all", norms[0].key, cause, _trained(site, None, ""))
    for layer in norms:
        yield Case("use_global_stats", model, str(layer), layer.key, cause, _trained(site, layer.node.name, ""))
    for layer in site.operators("Dropout"):
        cause = "training-mode Dropout"
        yield Case(cause, model, str(layer), layer.key, cause, _trained(site, "", layer.node.name))


def _trained(site: Site, norm: Optional[str], dropout: str) -> Plant:
    """Of the BatchNorms and Dropouts the one that is named runs as in training, all BatchNorms if None."""
    still = [
        plant.altered(stage, node.name, {"use_global_stats": "True"}, False)
        for stage, node in site.nodes
        if node.operator == "BatchNorm" and norm not in (None, node.name)
    ]
    still += [
        plant.altered(stage, node.name, {"p": "0.0"}, False)
        for stage, node in site.nodes
        if node.operator == "Dropout" and node.name != dropout
    ]
    return both(plant.in_training, *still)


# Codes and latents.


def _of_codes(site: Site) -> Iterator[Case]:
    distances = site.named("distances")
    if distances is None:
        return
    model, first, last = site.specimen.name, site.stages[0], site.stages[-1]
    shifts: list[tuple[str, str, Change]] = [
        ("codes transposed", "", lambda x: x.swapaxes(1, 2)),
        ("codes off by one", ", one too many", lambda x: x + 1),
        ("codes off by one", ", one too few", lambda x: x - 1),
    ]
    for kind, told, change in shifts:
        if site.is_bundle:
            yield Case(kind, model, f"between the halves{told}", f"{DECODER}/codes", kind, deeds(recode=change))
        else:
            behind = plant.tampered(GRAPH, "codes", change, told=False)
            yield Case(kind, model, f"behind argmin{told}", f"{GRAPH}/lookup", kind, behind)
    before = site.networks[first].graph.by_name()[distances].inputs[0][0]
    rows = site.named("latent", "transpose") or ""
    taker = site.networks[last].graph.consumers(rows)[0]
    latents: list[tuple[str, Change]] = [("latent sign", np.negative), ("latent layout", changes.nhwc)]
    for kind, change in latents:
        for place, stage, name, is_told, node in (
            ("before the distances", first, before, False, distances),
            ("behind the lookup", last, rows, False, taker),
            ("at the lookup", last, rows, True, rows),
        ):
            tampered = plant.tampered(stage, name, change, is_told)
            yield Case(kind, model, place, f"{stage}/{node}", kind, tampered)


# How it is run.


def _of_run(site: Site) -> Iterator[Case]:
    model = site.specimen.name

    def computes(node: Node) -> bool:
        return node.operator in (*KERNELS, "Pooling") and not node.name.endswith("distances")

    dependences: list[tuple[str, Change]] = [
        ("all from the first sample", lambda x: np.broadcast_to(x[:1], x.shape)),
        ("less the mean of the batch", lambda x: x - x.mean(axis=0, keepdims=True)),
    ]
    for number, layer in enumerate(site.layers(computes)):
        stage, name, key = layer.stage, layer.node.name, layer.key
        how, change = dependences[number % len(dependences)]
        kind = "batch dependence"
        yield Case(kind, model, f"{layer}, {how}", key, kind, plant.tampered(stage, name, change, True), TAMPERED)
        kind = "nondeterministic"
        yield Case(kind, model, str(layer), key, kind, plant.tampered(stage, name, changes.Noise(), True), TAMPERED)
        kind = "reading past a buffer"
        yield Case(kind, model, str(layer), key, kind, plant.tampered(stage, name, changes.cut_short, True))
    blocks = [node for _, node in site.nodes if node.operator == "elemwise_add"]
    for runtime in ("executor", "cpp-executor", "cpp-predict") if blocks and not site.is_bundle else ():
        yield Case("graph fusion", model, runtime, f"{GRAPH}/{blocks[0].name}", "graph fusion", both(), runtime)


# What is shown.


def _of_output(site: Site) -> Iterator[Case]:
    if not site.is_bundle:
        return
    draws: list[tuple[str, Change]] = [
        ("wraps around", lambda x: np.rint(x * 255).astype(np.int64).astype(np.uint8).transpose(0, 2, 3, 1)),
        ("(2-e)*125.5", lambda x: np.clip((2 - x) * 125.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)),
        ("transposed", lambda x: to_images(x).transpose(0, 2, 1, 3)),
        ("upside down", lambda x: to_images(x)[:, ::-1]),
    ]
    if site.channels == 3:
        draws += [
            ("channels swapped", lambda x: to_images(x)[..., ::-1]),
            ("CHW drawn as HWC", lambda x: np.rint(x).astype(np.uint8).reshape(to_images(x).shape)),
        ]
    model = site.specimen.name
    for told, draw in draws:
        yield Case(f"renderer: {told}", model, "image and file", "output/image", "renderer", deeds(draw=draw))
    saved = deeds(save=lambda image: image[:, ::-1])
    yield Case("renderer: upside down", model, "file alone", "output/file", "renderer", saved)


# Two at once.


def _of_two(site: Site) -> Iterator[Case]:
    kernels = site.kernels()
    first, middle, last = kernels[0], kernels[len(kernels) // 2], kernels[-1]

    def two(kind: str, node: str, cause: str, *plants: Plant) -> Case:
        return Case(f"two: {kind}", site.specimen.name, cause, node, cause, both(*plants))

    seen, fed = site.input(True), site.input(False)
    scaled = deeds(feed=lambda x: x / np.float32(255))
    transposed_inverted = deeds(misread=lambda x: 255 - x.transpose(0, 2, 1, 3))
    yield two("input", seen, "transposed input + inverted", transposed_inverted)
    if site.channels == 3:
        exchanged = deeds(misread=lambda x: x[..., ::-1])
        yield two("input", seen, "channel order + scale", exchanged, scaled)
        stored = plant.changed(site.stages, None, changes.float16, True)
        yield two("input and storage", seen, "channel order + float16 storage", exchanged, stored)
    corrupted = plant.bit_flipped(middle.stage, middle.node, middle.weight, 26, True)
    yield two("input and parameter", fed, "scale + one corrupted value", scaled, corrupted)
    turned = plant.changed([first.stage], [first.weight], lambda x: x[:, :, ::-1, ::-1], False)
    unbound = plant.unbound(last.stage, last.weight, changes.noise, False)
    yield two("parameters", first.key, "kernel flipped + argument unbound", turned, unbound)
    if site.is_bundle:
        books = [name for name in site.networks[DECODER].parameters if name.endswith("codebook")]
        permuted = plant.changed([DECODER], books, changes.permuted, False)
        yield two("parameters", first.key, "kernel flipped + codebook rows permuted", turned, permuted)
        column_major = deeds(misread=lambda x: x.transpose(0, 2, 1, 3), recode=lambda x: x.swapaxes(1, 2))
        told = "transposed input + codes transposed"
        yield two("column-major input and latent", seen, told, column_major)
        upside_down = deeds(recode=lambda x: x + 1, draw=lambda x: to_images(x)[:, ::-1])
        yield two("codes and renderer", f"{DECODER}/codes", "codes off by one + renderer", upside_down)
    for norm in site.operators("BatchNorm")[:1]:
        shaken = plant.altered(norm.stage, norm.node.name, {"eps": "0.01"}, False)
        yield two("graph and parameter", norm.key, "eps + argument unbound", shaken, unbound)


# Files that other runtimes run.


def _of_live_files(site: Site) -> Iterator[Case]:
    model, kernels = site.specimen.name, site.kernels()
    first, middle, last = kernels[0], kernels[len(kernels) // 2], kernels[-1]

    def changed(layer: Layer, change: Change) -> Plant:
        return plant.changed([layer.stage], [layer.weight], change, True)

    corrupted = plant.bit_flipped(middle.stage, middle.node, middle.weight, 26, True)
    runs = [
        ("cpp", first, "kernel layout", "kernel transposed", changed(first, changes.hwio)),
        ("executor", middle, "one corrupted value", "one corrupted value", corrupted),
        ("cpp-executor", last, "float16 storage", "float16 storage", changed(last, changes.float16)),
        ("cpp-predict", first, "parameter read too late", "reading past a buffer", changed(first, changes.one_late)),
    ]
    if not site.is_bundle and any(node.operator == "elemwise_add" for _, node in site.nodes):
        runs = runs[:1]  # The others would add a fault of their own.
    for runtime, layer, kind, cause, planted in runs:
        yield Case(kind, model, f"{layer}, live in {runtime}", layer.key, cause, planted, runtime)
    unbound = plant.unbound(last.stage, last.weight, np.zeros_like, True)
    kind = "parameter missing"  # Nothing runs: that is what the file is called, not what the network does.
    yield Case(kind, model, f"{last}, live in cpp, which refuses it", last.key, kind, unbound, "cpp")
