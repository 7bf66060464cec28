"""A wrong result in MXNet 1.9.1 itself; run it as it is: ``python parity_tests/earlier/fusion.py``."""

import os

from vqvae_gluon.compat import mx

stem = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), pad=(1, 1), num_filter=8)
hidden = mx.sym.Convolution(mx.sym.Activation(stem, act_type="relu"), kernel=(3, 3), pad=(1, 1), num_filter=8)
network = stem + mx.sym.Convolution(mx.sym.Activation(hidden, act_type="relu"), kernel=(1, 1), num_filter=8)
results = {}
for backend in ("MKLDNN", "NONE"):  # The first is the default.
    os.environ["MXNET_SUBGRAPH_BACKEND"] = backend
    executor = network.simple_bind(mx.cpu(), grad_req="null", data=(1, 8, 16, 16))
    for k, array in enumerate(executor.arg_arrays):
        mx.random.seed(k)
        array[:] = mx.nd.random.normal(scale=0.3, shape=array.shape)
    results[backend] = executor.forward(is_train=False)[0].asnumpy()
error = abs(results["MKLDNN"] - results["NONE"]).max()
print(f"largest value {abs(results['NONE']).max():.3f}, largest error {error:.3f}")
