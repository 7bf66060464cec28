"""The network: every loss moves what it should, and nothing else."""

import dataclasses

import numpy as np
import pytest

from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS, Config, ModelConfig
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.model.quantizer import VectorQuantizer
from vqvae_gluon.model.vqvae import VQVAE, CodesToImages, ImagesToCodes, Residual

K, D = 8, 4


@pytest.fixture
def quantizer():
    mx.random.seed(1)
    block = VectorQuantizer(ModelConfig(num_embeddings=K, embedding_dim=D), prefix="q_")
    block.initialize(mx.init.Uniform(1.0))
    return block


@pytest.fixture
def z_e():
    array = mx.nd.array(np.random.default_rng(2).normal(size=(3, D, 2, 5)))
    array.attach_grad()
    return array


def initialized(preset):
    model = VQVAE(PRESETS[preset].model)
    model.initialize(mx.init.Xavier())
    return model


@pytest.fixture
def network():
    return initialized("mnist")


@pytest.fixture
def residual():
    return initialized("cifar10")


@pytest.fixture
def photos():
    """Four RGB images with some structure, uint8 (4, 32, 32, 3)."""
    rows, columns = np.mgrid[0:32, 0:32]
    waves = [np.sin(rows / (k + 2) + c) * np.cos(columns / (c + 3) + k) for k in range(4) for c in range(3)]
    return (127 * np.reshape(waves, (4, 3, 32, 32)) + 128).astype("uint8").transpose(0, 2, 3, 1)


def rows_of(z_e):
    """Latent pixels as rows, (N*h*w, D), in NumPy."""
    return z_e.asnumpy().transpose(0, 2, 3, 1).reshape(-1, D)


def nearest(z_e, codebook):
    """Equation 1 as it is written."""
    return ((rows_of(z_e)[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)


def gradients(quantizer, z_e, output):
    """Gradients of one output of the quantizer, summed, for the latent and the codebook."""
    codebook = quantizer.codebook
    codebook.zero_grad()
    with mx.autograd.record():
        result = quantizer(z_e)[output].sum()
    result.backward()
    return z_e.grad.asnumpy(), codebook.grad().asnumpy()


def test_codes_are_the_nearest_rows(quantizer, z_e):
    codes = quantizer(z_e)[1]
    assert codes.shape == (3, 2, 5)
    assert codes.dtype == np.int32
    np.testing.assert_array_equal(codes.asnumpy().ravel(), nearest(z_e, quantizer.codebook.data().asnumpy()))


def test_the_quantized_latent_is_the_codebook_row_exactly(quantizer, z_e):
    z_q, codes, _, _ = quantizer(z_e)
    expected = quantizer.codebook.data().asnumpy()[codes.asnumpy()].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(z_q.asnumpy(), expected)


def test_straight_through_hands_the_gradient_on_unchanged(quantizer, z_e):
    weights = mx.nd.array(np.random.default_rng(3).normal(size=z_e.shape))
    with mx.autograd.record():
        result = (quantizer(z_e)[0] * weights).sum()
    result.backward()
    np.testing.assert_array_equal(z_e.grad.asnumpy(), weights.asnumpy())


def test_the_reconstruction_does_not_move_the_codebook(quantizer, z_e):
    _, of_codebook = gradients(quantizer, z_e, 0)
    assert not of_codebook.any()


def test_the_codebook_loss_moves_only_the_codebook(quantizer, z_e):
    of_latent, of_codebook = gradients(quantizer, z_e, 2)
    codebook = quantizer.codebook.data().asnumpy()
    latents, codes = rows_of(z_e), nearest(z_e, codebook)
    expected = np.zeros((K, D))
    np.add.at(expected, codes, 2 * (codebook[codes] - latents) / latents.size)
    assert not of_latent.any()
    np.testing.assert_allclose(of_codebook, expected, rtol=1e-5, atol=1e-7)


def test_the_commitment_loss_moves_only_the_encoder(quantizer, z_e):
    of_latent, of_codebook = gradients(quantizer, z_e, 3)
    of_latent = of_latent.transpose(0, 2, 3, 1).reshape(-1, D)
    codebook = quantizer.codebook.data().asnumpy()
    latents, codes = rows_of(z_e), nearest(z_e, codebook)
    expected = 2 * (latents - codebook[codes]) / latents.size
    np.testing.assert_allclose(of_latent, expected, rtol=1e-5, atol=1e-7)
    assert not of_codebook.any()


def test_both_losses_are_means(quantizer, z_e):
    _, codes, codebook_loss, commitment_loss = quantizer(z_e)
    codebook = quantizer.codebook.data().asnumpy()
    expected = ((rows_of(z_e) - codebook[codes.asnumpy().ravel()]) ** 2).mean()
    assert codebook_loss.asscalar() == pytest.approx(expected, rel=1e-5)
    assert commitment_loss.asscalar() == pytest.approx(expected, rel=1e-5)


def test_the_mnist_preset_is_the_earlier_projects_network(network):
    shapes = {name: parameter.shape for name, parameter in network.collect_params().items()}
    assert shapes == {
        "encoder_conv0_weight": (32, 1, 3, 3),
        "encoder_conv0_bias": (32,),
        "encoder_conv1_weight": (64, 32, 3, 3),
        "encoder_conv1_bias": (64,),
        "encoder_latent_weight": (16, 64, 1, 1),
        "encoder_latent_bias": (16,),
        "quantizer_codebook": (64, 16),
        "decoder_upconv0_weight": (16, 64, 4, 4),
        "decoder_upconv0_bias": (64,),
        "decoder_upconv1_weight": (64, 32, 4, 4),
        "decoder_upconv1_bias": (32,),
        "decoder_image_weight": (1, 32, 3, 3),
        "decoder_image_bias": (1,),
    }
    original = PRESETS["mnist-original"]
    assert {name: parameter.shape for name, parameter in VQVAE(original.model).collect_params().items()} == shapes
    training = original.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (100, 500, 1e-4)
    assert training.reconstruction_weight == 28 * 28
    assert original.model.commitment_cost == 0.25
    assert original.model.quantizer == "codebook-loss"
    assert (PRESETS["mnist"].training.epochs, PRESETS["mnist"].training.batch_size) == (100, 500)


def test_the_cifar10_preset_is_the_standard_residual_network(residual):
    """van den Oord et al. 2017, section 4.1, with the widths of Sonnet's example."""
    shapes = {name: parameter.shape for name, parameter in residual.collect_params().items()}
    block = {
        "conv0_weight": (32, 128, 3, 3),
        "conv0_bias": (32,),
        "conv1_weight": (128, 32, 1, 1),
        "conv1_bias": (128,),
    }
    expected = {
        "encoder_conv0_weight": (64, 3, 4, 4),
        "encoder_conv1_weight": (128, 64, 4, 4),
        "encoder_stem_weight": (128, 128, 3, 3),
        "encoder_latent_weight": (64, 128, 1, 1),
        "quantizer_codebook": (512, 64),
        "decoder_stem_weight": (128, 64, 3, 3),
        "decoder_upconv0_weight": (128, 64, 4, 4),
        "decoder_image_weight": (64, 3, 4, 4),
    }
    for half in ("encoder", "decoder"):
        expected |= {f"{half}_block{i}_{name}": shape for i in range(2) for name, shape in block.items()}
    weights = {name: shape for name, shape in shapes.items() if "_block" in name or not name.endswith("bias")}
    assert weights == expected
    assert len(shapes) - len(weights) == 7  # A bias for each of the other convolutions.
    assert PRESETS["cifar10"].model.stride == 4


def test_the_sonnet_preset_has_the_numbers_of_its_example():
    model, training = PRESETS["cifar10-sonnet"].model, PRESETS["cifar10-sonnet"].training
    assert (training.steps, training.batch_size, training.learning_rate, training.schedule) == (
        10000,
        32,
        3e-4,
        "constant",
    )
    assert (model.quantizer, model.decay, model.epsilon, model.commitment_cost) == ("ema", 0.99, 1e-5, 0.25)
    assert (model.restart_below, training.kmeans_images, training.clip_norm) == (0, 0, 0)
    assert training.reconstruction_weight == pytest.approx(1 / 0.06327, rel=1e-3)


def test_a_block_adds_to_what_it_is_given():
    block = Residual(6, 2, prefix="block_")
    block.initialize(mx.init.Normal(0.5))
    x = mx.nd.random.normal(shape=(2, 6, 5, 5))
    inner = mx.nd.relu(block.conv0(mx.nd.relu(x)))
    np.testing.assert_allclose(block(x).asnumpy(), (x + block.conv1(inner)).asnumpy(), rtol=1e-5, atol=1e-6)


def test_configs_from_before_the_blocks_are_read():
    written = PRESETS["mnist"].to_json()
    assert Config.from_json(written) == PRESETS["mnist"]
    for name in ("residual_blocks", "residual_channels"):
        del written["model"][name]
    assert Config.from_json(written) == PRESETS["mnist"]
    del written["model"]["embedding_dim"]
    with pytest.raises(ValueError, match="fields"):
        Config.from_json(written)


@pytest.mark.parametrize("change", [{"residual_blocks": 1}, {"residual_channels": 8}, {"residual_blocks": -1}])
def test_a_config_with_half_of_a_block_is_refused(change):
    written = PRESETS["mnist"].to_json()
    with pytest.raises(ValueError, match="residual"):
        Config.from_json({**written, "model": {**written["model"], **change}})


def test_the_last_layer_is_the_transposed_convolution_with_its_kernel_turned_around():
    convolution = mx.gluon.nn.Conv2D(1, 3, padding=1, in_channels=5)
    transposed = mx.gluon.nn.Conv2DTranspose(1, 3, padding=1, in_channels=5)
    for block in (convolution, transposed):
        block.initialize()
    kernel = convolution.weight.data().asnumpy()
    transposed.weight.set_data(mx.nd.array(kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)))
    images = mx.nd.random.normal(shape=(2, 5, 6, 7))
    np.testing.assert_allclose(convolution(images).asnumpy(), transposed(images).asnumpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "pictures"),
    [
        (PRESETS["mnist"].model, "digits"),
        (dataclasses.replace(PRESETS["mnist"].model, image_channels=3), "photos"),
        (PRESETS["cifar10"].model, "photos"),
        (dataclasses.replace(PRESETS["cifar10"].model, image_channels=1, hidden_channels=(8, 8)), "digits"),
    ],
    ids=["mnist", "mnist in colour", "cifar10", "cifar10 in gray"],
)
def test_training_computes_the_same_functions(config, pictures, request):
    trained, plain = VQVAE(config, training=True), VQVAE(config)
    trained.initialize(mx.init.Xavier())
    plain.initialize()
    for name, parameter in plain.collect_params().items():
        parameter.set_data(trained.collect_params()[name].data())
    # In float64 MXNet's own operators run: on processors with AVX2 alone oneDNN has no gradient of a transposed
    # convolution to one channel.
    plain.cast("float64")
    images = mx.nd.array(to_tensor(request.getfixturevalue(pictures)[:20]))
    gradients = []
    for model, dtype in ((trained, "float32"), (plain, "float64")):
        with mx.autograd.record():
            reconstruction, _, codes, loss, *_ = model(images.astype(dtype))
        loss.backward()
        gradients.append((reconstruction.asnumpy(), codes.asnumpy(), model.decoder.collect_params()))
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    np.testing.assert_array_equal(gradients[0][1], gradients[1][1])
    for name, parameter in gradients[0][2].items():
        expected = gradients[1][2][name].grad().asnumpy()
        np.testing.assert_allclose(parameter.grad().asnumpy(), expected, rtol=1e-4, atol=1e-7, err_msg=name)


def test_an_untrained_network_may_start_at_the_mean(network, digits):
    network.decoder.start_at(0.13)
    reconstruction = network(mx.nd.array(to_tensor(digits[:8])))[0].asnumpy()
    assert reconstruction.mean() == pytest.approx(0.13, abs=0.03)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 28, 28), (7, 28, 28), (2, 8, 40)])
@pytest.mark.parametrize("hybrid", [False, True])
def test_no_shape_is_baked_in(network, batch, height, width, hybrid):
    network.hybridize(active=hybrid)
    network(mx.nd.zeros((3, 1, 28, 28)))
    reconstruction, z_e, codes, *losses = network(mx.nd.random.uniform(0, 255, (batch, 1, height, width)))
    assert reconstruction.shape == (batch, 1, height, width)
    assert codes.shape == (batch, height // 4, width // 4)
    assert z_e.shape == (batch, 16, height // 4, width // 4)
    assert [loss.shape for loss in losses] == [(1,)] * 3


def check_gradients(model, images):
    with mx.autograd.record():
        _, _, _, mse, codebook_loss, commitment_loss = model(mx.nd.array(to_tensor(images)))
        loss = mse + codebook_loss + 0.25 * commitment_loss
    loss.backward()
    parameters = model.collect_params().values()
    assert all(parameter.grad().asnumpy().any() for parameter in parameters if parameter.grad_req != "null")
    assert [parameter.name for parameter in parameters if parameter.grad_req == "null"] == ["quantizer_codebook"]


def test_every_parameter_gets_a_gradient(network, digits):
    check_gradients(network, digits[:16])


def test_every_parameter_of_the_residual_network_gets_a_gradient(residual, photos):
    check_gradients(residual, photos)


def check_exported_halves(model, images):
    tensor = mx.nd.array(to_tensor(images))
    reconstruction, _, codes, *_ = model(tensor)
    exported_codes = ImagesToCodes(model)(tensor)
    np.testing.assert_array_equal(exported_codes.asnumpy(), codes.asnumpy())
    exported = CodesToImages(model)(exported_codes).asnumpy()
    np.testing.assert_allclose(exported, reconstruction.asnumpy() * 255, atol=1e-3)
    assert exported.shape == tensor.shape
    assert exported.min() >= 0
    assert exported.max() <= 255


def test_the_exported_halves_are_the_trained_network(network, digits):
    check_exported_halves(network, digits[:4])


def test_the_exported_halves_are_the_trained_residual_network(residual, photos):
    check_exported_halves(residual, photos)
