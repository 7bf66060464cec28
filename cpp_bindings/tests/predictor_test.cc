#include "vqvae/predictor.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "support.hpp"
#include "vqvae/error.hpp"
#include "vqvae/image.hpp"

namespace {

vqvae::Tensor digits(int count) {
  vqvae::Tensor images;
  for (int i = 0; i < count; ++i) {
    const std::string path = std::string(VQVAE_PRETRAINED "/digits/0") + std::to_string(i) + ".png";
    const vqvae::Tensor image = vqvae::decode_image(vqvae::read_file(path, 1 << 20), 1, path);
    if (i == 0) {
      images = image;
    } else {
      vqvae::append(&images, image);
    }
  }
  return images;
}

}  // namespace

TEST_CASE("decoding the codes gives what reconstructing gives, whatever the batch") {
  vqvae::Predictor predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true));
  const vqvae::Tensor images = digits(5);
  const vqvae::Tensor codes = predictor.encode(images);
  CHECK(codes.shape == vqvae::Shape{5, 7, 7});
  const vqvae::Tensor result = predictor.reconstruct(images);
  CHECK(result.data == vqvae::to_images(predictor.decode(codes)).data);
  for (int i = 0; i < 5; ++i) {
    CHECK(predictor.reconstruct(vqvae::slice(images, i, i + 1)).data == vqvae::slice(result, i, i + 1).data);
  }
}

TEST_CASE("every engine gives the same codes, whatever the batch") {
  const vqvae::Tensor images = digits(5);
  const vqvae::Tensor codes = vqvae::Predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true)).encode(images);
  for (const vqvae::Engine engine : {vqvae::Engine::kExecutor, vqvae::Engine::kPredict}) {
    vqvae::Predictor predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true), engine);
    for (const std::int64_t end : {5, 2, 5}) {
      CHECK(predictor.encode(vqvae::slice(images, 0, end)).data == vqvae::slice(codes, 0, end).data);
    }
  }
}

TEST_CASE("outputs are handed over one by one, under their nodes' names") {
  vqvae::Bundle bundle = vqvae::read_bundle(VQVAE_PRETRAINED, true);
  vqvae::Network network(bundle.encoder, {"data", "not taken"});
  const vqvae::Inputs inputs = {{"data", vqvae::to_tensor(digits(2))}, {"not taken", vqvae::Tensor()}};
  std::vector<std::string> names;
  vqvae::Tensor last;
  network.taps(inputs, [&](vqvae::Tap tap) {
    names.push_back(tap.name);
    last = std::move(tap.value);
  });
  CHECK(names.front() == "_divscalar0");
  CHECK(names.back() == "quantizer_codes");
  network.run(inputs, [&](const vqvae::Tap& tap) {
    CHECK(tap.name == "quantizer_codes");
    CHECK(tap.op == "Cast");
    CHECK(tap.value.data == last.data);
  });
  CHECK(network.run(inputs).at(0).data == last.data);
}

TEST_CASE("sides that the stride does not divide are padded, and cropped again") {
  vqvae::Predictor predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true));
  const vqvae::Tensor image = vqvae::crop(digits(1), 27, 25);
  CHECK(predictor.encode(image).shape == vqvae::Shape{1, 7, 7});
  const vqvae::Tensor result = predictor.reconstruct(image);
  CHECK(result.shape == image.shape);
  CHECK(result.data == vqvae::crop(predictor.reconstruct(vqvae::pad_to(image, 4)), 27, 25).data);
  CHECK_THROWS_AS(predictor.decode(predictor.encode(image), 28, 29), vqvae::InputError);
}

TEST_CASE("in tiles and parts of a batch comes out what comes out at once") {
  for (const vqvae::Engine engine : {vqvae::Engine::kCachedOp, vqvae::Engine::kExecutor}) {
    for (const vqvae::Shape& shape :
         {vqvae::Shape{1, 101, 67, 1}, vqvae::Shape{3, 64, 64, 1}, vqvae::Shape{2, 7, 160, 1}}) {
      vqvae::Tensor images(vqvae::DType::kUint8, shape);
      std::uint32_t state = 1;  // The same noise every time.
      for (std::uint8_t& value : images.data) value = static_cast<std::uint8_t>((state = state * 48271U) >> 24U);
      vqvae::Predictor whole(vqvae::read_bundle(VQVAE_PRETRAINED, true), engine);
      const vqvae::Tensor codes = whole.encode(images);
      const vqvae::Tensor result = whole.reconstruct(images);
      for (const std::size_t limit : {400000, 600000, 1000000}) {
        vqvae::Predictor tiled(vqvae::read_bundle(VQVAE_PRETRAINED, true), engine, vqvae::Fusion::kSafe, limit);
        std::size_t parts = 0;
        tiled.set_progress([&parts](std::size_t done, std::size_t total) {
          CHECK(done <= total);
          parts = total;
        });
        CHECK(tiled.encode(images).data == codes.data);
        CHECK(tiled.reconstruct(images).data == result.data);
        CHECK(parts > 1);
      }
    }
  }
}

TEST_CASE("a memory limit that the smallest tile does not keep is told") {
  vqvae::Predictor predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true), vqvae::Engine::kCachedOp, vqvae::Fusion::kSafe,
                             1000);
  CHECK_THROWS_WITH_AS(predictor.encode(digits(1)), doctest::Contains("for the smallest tile"), vqvae::InputError);
}

TEST_CASE("a bundle whose graphs do not give what it says is rejected") {
  for (const auto change : {+[](vqvae::Bundle* b) { b->stride = 2; }, +[](vqvae::Bundle* b) { b->channels = 3; },
                            +[](vqvae::Bundle* b) { std::swap(b->encoder, b->decoder); }}) {
    vqvae::Bundle bundle = vqvae::read_bundle(VQVAE_PRETRAINED, true);
    change(&bundle);
    CHECK_THROWS_AS(vqvae::Predictor{bundle}, vqvae::InputError);
  }
}

TEST_CASE("nodes that MXNet would follow into the dark are rejected") {
  const vqvae::Bundle bundle = vqvae::read_bundle(VQVAE_PRETRAINED, true);
  const std::string& json = bundle.encoder.graph.json;
  for (const auto& [from, to] : {std::pair<const char*, const char*>{"[12,0,0]", "[12,1,0]"},
                                 {"[12,0,0]", "[12,1000000,0]"},
                                 {"[12,0,0]", "[12,0,0],[12,0,0]"},
                                 {"\"num_group\":\"1\"", "\"num_group\":\"x\""},
                                 {"\"num_group\"", "\"num_grapes\""},
                                 {"\"Convolution\"", "\"Confusion\""}}) {
    const std::size_t at = json.find(from);
    REQUIRE(at != std::string::npos);
    const std::string text = std::string(json).replace(at, std::string(from).size(), to);
    const auto open = [&bundle, &text] {
      vqvae::Export altered = bundle.encoder;
      altered.graph = vqvae::parse_graph(to_bytes(text), "x");
      return vqvae::Network(altered, {"data"});
    };
    CHECK_THROWS_AS(open(), vqvae::InputError);
  }
}

TEST_CASE("images and codes that the network cannot take are rejected") {
  vqvae::Predictor predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true));
  for (const vqvae::Shape& shape : {vqvae::Shape{1, 28, 28, 3}, vqvae::Shape{1, 28, 28}, vqvae::Shape{0, 28, 28, 1}}) {
    CHECK_THROWS_AS(predictor.encode(vqvae::Tensor(vqvae::DType::kUint8, shape)), vqvae::InputError);
  }
  vqvae::Tensor codes(vqvae::DType::kInt32, {1, 7, 7});
  CHECK_NOTHROW(predictor.decode(codes));
  for (const int code : {-1, 64}) {
    codes.as<std::int32_t>()[3] = code;
    CHECK_THROWS_AS(predictor.decode(codes), vqvae::InputError);
  }
}

TEST_CASE("a parameter that does not fit its graph is named") {
  vqvae::Bundle bundle = vqvae::read_bundle(VQVAE_PRETRAINED, true);
  vqvae::Parameters& parameters = bundle.encoder.parameters;
  const vqvae::Tensor bias = parameters.at("arg:encoder_conv0_bias");

  parameters.erase("arg:encoder_conv0_bias");
  CHECK_THROWS_WITH_AS(vqvae::Predictor{bundle}, doctest::Contains("parameter missing: encoder_conv0_bias"),
                       vqvae::InputError);
  parameters["aux:encoder_conv0_bias"] = bias;
  CHECK_THROWS_WITH_AS(vqvae::Predictor{bundle}, doctest::Contains("wrong prefix: encoder_conv0_bias"),
                       vqvae::InputError);
  parameters["arg:encoder_conv0_bias"] = bias;
  CHECK_THROWS_WITH_AS(vqvae::Predictor{bundle}, doctest::Contains("parameter unknown"), vqvae::InputError);
  parameters.erase("aux:encoder_conv0_bias");
  parameters["arg:encoder_conv0_bias"] = vqvae::Tensor(vqvae::DType::kFloat32, {33});
  vqvae::Predictor predictor(bundle);
  CHECK_THROWS_WITH_AS(predictor.encode(digits(1)), doctest::Contains("wrong shape: encoder_conv0_bias"),
                       vqvae::InputError);
}
