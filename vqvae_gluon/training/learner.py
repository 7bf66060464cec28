"""One step of training: forward, backward, the sum over all machines, the parameters, the codebook."""

from typing import NamedTuple, Optional

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.kernels import TRAINING, check_kernels, has_kernels
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training.adam import Adam
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.kmeans import kmeans
from vqvae_gluon.training.metrics import objective

LOSSES = ("loss", "mse", "codebook_loss", "commitment_loss")
_CLUSTERED_ROWS = 1 << 15
_MOMENTS = ("mean", "variance")  # Adam's, in the order of MXNet's state.
_START, _RESTART = 1, 2  # of streams of random numbers, beside that of the order of the images


class Step(NamedTuple):
    """What a step measured, of the whole batch.

    Attributes:
        losses: float64 (4,), in the order of :data:`LOSSES`.
        counts: (K,), how often each code was used.
        gradient_norm: of all parameters together, before it was clipped.
        restarted: rows of the codebook that were.
    """

    losses: np.ndarray
    counts: np.ndarray
    gradient_norm: float
    restarted: int


class Learner:
    """A model and what moves it.

    Args:
        workers: with whom each batch is shared.
        operators: as :attr:`RunConfig.operators`.

    Attributes:
        is_fused: whether this project's operators train the convolutions.

    Raises:
        RuntimeFailure: the operators that are asked for cannot be had.
    """

    def __init__(self, config: Config, workers: Alone, operators: str = "auto"):
        self._config = config
        self._workers = workers
        mx.random.seed(config.training.seed)
        np.random.seed(config.training.seed)  # MXNet's initializers draw from NumPy.
        self.is_fused = _may_fuse(operators)
        self.model = VQVAE(config.model, training=not self.is_fused)
        self.model.start()
        if self.is_fused:
            # Without fixed shapes MXNet would make the operators, and what they keep, anew in every step.
            self.model.hybridize(backend=TRAINING, static_alloc=True, static_shape=True)
        else:
            self.model.hybridize(static_alloc=True)
        self.optimizer = Adam(self.is_fused, learning_rate=config.training.learning_rate)
        self.trainer = mx.gluon.Trainer(
            self.model.collect_params(),
            self.optimizer,
            kvstore=workers.store,
            update_on_kvstore=None if workers.store is None else False,
        )
        self._gradients = [p.grad() for p in self.model.collect_params().values() if p.grad_req != "null"]
        self._deployed = VQVAE(config.model)
        self._deployed.initialize(mx.init.Zero())
        self._deployed.hybridize(static_alloc=True)

    def deployed(self) -> VQVAE:
        """The network as it is exported, with the parameters of now: Gluon's ordinary layers. Those that train compute
        the same functions with other rounding, which is enough for another code or another byte of a picture."""
        set_parameters(self._deployed, self._parameters())
        return self._deployed

    def _parameters(self) -> dict[str, np.ndarray]:
        return {f"model/{name}": p.data().asnumpy() for name, p in self.model.collect_params().items()}

    def start(self, images: np.ndarray) -> None:
        """Fit what the config says is not to start at random to images, uint8 (N, H, W, C)."""
        training = self._config.training
        if training.mean_start:
            self.model.decoder.start_at(min(max(float(images.mean()) / 255, 0.001), 0.999))
        if training.kmeans_images:
            spread = np.linspace(0, len(images), min(training.kmeans_images, len(images)), endpoint=False)
            self._start_codebook(images[spread.astype(int)])

    def _start_codebook(self, images: np.ndarray) -> None:
        """The first codebook, of what the untrained encoder makes of images."""
        model, training = self._config.model, self._config.training
        parts = np.array_split(images, -(-len(images) // training.batch_size))
        latents = [self.model(mx.nd.array(to_tensor(part)))[1] for part in parts]
        rows = np.concatenate([self.model.quantizer.rows_of(part).asnumpy() for part in latents])
        random = np.random.default_rng([training.seed, _START])
        if len(rows) < model.num_embeddings:
            wanted = -(-model.num_embeddings * len(images) // len(rows))
            raise InputError(
                "--kmeans-images",
                f"{len(images)} images have {len(rows)} latents, too few for the {model.num_embeddings} rows of the "
                f"codebook; give at least {wanted} images, at most --num-embeddings {len(rows)}, or --kmeans-images 0",
            )
        rows = random.permutation(rows)[: max(_CLUSTERED_ROWS, model.num_embeddings)]
        centres, sizes = kmeans(rows, model.num_embeddings, random)
        for_batch = training.batch_size * np.prod(latents[0].shape[2:])
        centres, sizes = (np.frombuffer(self._workers.agree(part.tobytes()), part.dtype) for part in (centres, sizes))
        self.model.quantizer.start(centres.reshape(-1, model.embedding_dim), sizes / sizes.sum() * for_batch)

    def step(self, images: np.ndarray, number: int, learning_rate: float) -> Step:
        """Learn from a batch.

        Args:
            images: this process's part of it, uint8 (N, H, W, C).
            number: of the step, from 1 on.

        Raises:
            RuntimeFailure: a loss or a gradient is not finite; the parameters are as they were before.
        """
        quantizer, count = self.model.quantizer, self._workers.count
        batch = mx.nd.array(to_tensor(images))
        with mx.autograd.record():
            _, z_e, codes, *terms = self.model(batch)
            loss = objective(self._config, *terms)
        loss.backward()
        self._join()
        self.trainer.allreduce_grads()
        squares = mx.nd.multi_sum_sq(*self._gradients, num_arrays=len(self._gradients))
        measured = mx.nd.concat(loss, *terms, squares, dim=0).asnumpy()
        losses, norm = measured[: len(LOSSES)], float(np.sqrt(measured[len(LOSSES) :].sum(dtype=np.float64))) / count
        counts = np.bincount(codes.asnumpy().ravel(), minlength=self._config.model.num_embeddings)
        totals = self._workers.add_up(
            np.concatenate([losses / count, counts, _quietly(quantizer.statistics, z_e, codes)]).astype(np.float32)
        )
        losses, counts, statistics = np.split(totals, np.cumsum([len(losses), len(counts)]))
        if not (np.isfinite(losses).all() and np.isfinite(norm)):
            where = self._first_wrong(batch)
            what = (
                f"the loss is {losses[0]}" if not np.isfinite(losses).all() else f"the norm of the gradient is {norm}"
            )
            raise RuntimeFailure(f"step {number}", f"{what}{where and f', and first of all {where}'}")
        clip = self._config.training.clip_norm
        self.trainer.set_learning_rate(learning_rate)
        self.trainer.update(count * (norm / clip if clip and norm > clip else 1))  # The losses are means already.
        random = np.random.default_rng([self._config.training.seed, _RESTART, number])
        restarted = quantizer.update(statistics, lambda rows: self._draw(z_e, rows, random))
        return Step(losses.astype(np.float64), counts.astype(np.int64), norm, restarted)

    def _join(self) -> None:
        """Before the first gradients, give all workers the parameters of rank 0, and wait until this one has them.

        The trainer would do so by itself, without waiting, and then send gradients under the same keys. Of requests
        that wait at a server the newest may be answered first: who was late was given the sum of the gradients as a
        parameter, and went on with it. Not before a backward pass: one without leaves parameters in oneDNN's layout,
        which MXNet does not send.
        """
        if not self.trainer._kv_initialized:
            self.trainer._init_kvstore()
            self.trainer._init_params()
            mx.nd.waitall()

    def state(self) -> dict[str, np.ndarray]:
        """Everything that steps change, by name: parameters, Adam's moments, what the quantizer remembers."""
        arrays = self._parameters()
        for index, moments in self.trainer._updaters[0].states.items():
            arrays.update({f"adam/{index}/{which}": moment.asnumpy() for which, moment in zip(_MOMENTS, moments)})
        arrays.update({f"quantizer/{name}": value for name, value in self.model.quantizer.state.items()})
        return arrays

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        """Put back what :meth:`state` gave after so many steps.

        Raises:
            ValueError: an array is missing or of another shape.
        """
        set_parameters(self.model, arrays)
        updater, quantizer = self.trainer._updaters[0], self.model.quantizer
        for index, parameter in enumerate(self.trainer._params):
            if parameter.grad_req != "null":
                moments = (_array(arrays, f"adam/{index}/{which}", parameter.shape) for which in _MOMENTS)
                updater.states[index] = tuple(mx.nd.array(moment) for moment in moments)
                updater.states_synced[index] = True
                self.optimizer._index_update_count[index] = steps
        self.optimizer.num_update = steps
        quantizer.state = {
            name: _array(arrays, f"quantizer/{name}", value.shape) for name, value in quantizer.state.items()
        }

    def _draw(self, z_e, count: int, random: np.random.Generator) -> np.ndarray:
        """Latents of the batch, (count, D); each process gives those that it has."""
        rows = self.model.quantizer.rows_of(z_e).asnumpy()
        every = len(rows) * self._workers.count
        chosen = random.choice(every, count, replace=count > every) - len(rows) * self._workers.rank
        own = (chosen >= 0) & (chosen < len(rows))
        drawn = np.zeros((count, rows.shape[1]), dtype=np.float32)
        drawn[own] = rows[chosen[own]]
        return self._workers.add_up(drawn.ravel()).reshape(drawn.shape)

    def _first_wrong(self, batch) -> str:
        """Which value is first not to be finite: of the parameters, else going forward, else of the gradients.

        It leaves the model as one that is not hybridized: the run is at its end.
        """
        parameters = {p.name: p for p in self.model.collect_params().values()}
        for name, parameter in parameters.items():
            if not _finite(parameter.data()):
                return f"the parameter {name}"
        found: list[str] = []

        def look(block, _, output) -> None:
            if not found and not _finite(output[0] if isinstance(output, (list, tuple)) else output):
                found.append(f"the output of {block.name}")

        self.model.hybridize(False)
        self.model.apply(lambda block: block.register_forward_hook(look))
        self.model(batch)
        gradients = (f"the gradient of {name}" for name, p in parameters.items() if p.grad_req != "null")
        found += [text for text, gradient in zip(gradients, self._gradients) if not _finite(gradient)]
        return found[0] if found else ""


def _quietly(function, *arguments):
    """Without NumPy's warnings of what is not finite: the losses are, too, and end the run by a message."""
    with np.errstate(all="ignore"):
        return function(*arguments)


def _may_fuse(operators: str) -> bool:
    if operators == "fused":
        check_kernels()
    return operators != "mxnet" and has_kernels()


def _finite(array) -> bool:
    return bool(np.isfinite(array.asnumpy()).all())


def set_parameters(model: VQVAE, arrays: dict[str, np.ndarray]) -> None:
    """Give a model the parameters that :meth:`Learner.state` gave.

    Raises:
        ValueError: an array is missing or of another shape.
    """
    for name, parameter in model.collect_params().items():
        parameter.set_data(mx.nd.array(_array(arrays, f"model/{name}", parameter.shape)))


def state_layout(model: VQVAE) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of all arrays that :meth:`Learner.state` gives of a model that has learned, by name."""
    parameters = model.collect_params()
    layout = {f"model/{name}": ("float32", p.shape) for name, p in parameters.items()}
    for index, name in enumerate(sorted(parameters)):  # As Gluon's trainer numbers them.
        if parameters[name].grad_req != "null":
            layout.update({f"adam/{index}/{which}": ("float32", parameters[name].shape) for which in _MOMENTS})
    state = model.quantizer.state.items()
    return {**layout, **{f"quantizer/{name}": (value.dtype.name, value.shape) for name, value in state}}


def _array(arrays: dict[str, np.ndarray], name: str, shape: Optional[tuple[int, ...]]) -> np.ndarray:
    value = arrays.get(name)
    if value is None or value.shape != shape:
        raise ValueError(f"it does not hold {name} of shape {shape}")
    return value
