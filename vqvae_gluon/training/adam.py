"""Adam, of many parameters at a time."""

import math

from vqvae_gluon.compat import call_operator, mx
from vqvae_gluon.kernels import ADAM_OPERATOR

_TOGETHER = 45  # MXNet's operator takes no more.


class Adam(mx.optimizer.Adam):
    """MXNet's Adam (Kingma and Ba 2015, arXiv:1412.6980) with one operator for all parameters: the same function and
    states. With one for each, most of the time is spent between them.

    Args:
        fused: by this project's operator, whose library must be loaded; else by MXNet's.
    """

    def __init__(self, fused: bool, **kwargs):
        super().__init__(**kwargs)
        self._is_fused = fused
        self.aggregate_num = 1 << 16 if fused else _TOGETHER

    def update(self, index, weight, grad, state) -> None:
        """One step of the parameters ``weight``.

        Args:
            index: of each, as the trainer numbers them.
            weight, grad: float32 arrays, one for each.
            state: first and second moment of each.
        """
        rates = []
        for i in index:
            self._update_count(i)
            step = self._index_update_count[i]
            rates.append(self._get_lr(i) * math.sqrt(1 - self.beta2**step) / (1 - self.beta1**step))
        means, variances = zip(*state)
        constants = {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}
        if self._is_fused:
            arrays = [*weight, *grad, *means, *variances]
            call_operator(ADAM_OPERATOR, arrays, {"rates": tuple(rates), "scale": self.rescale_grad, **constants})
        else:
            count = len(rates)
            mx.nd.contrib.multi_adamw_update(
                weight,
                grad,
                means,
                variances,
                self.rescale_grad,
                out=weight,
                lrs=rates,
                wds=[0.0] * count,
                etas=[1.0] * count,
                **constants,
            )
