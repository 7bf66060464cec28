// Times a bundle for `vqvae-gluon bench`, which starts it. Not installed.
//
//   measure --bundle DIR [--kernels mxnet|fused] INPUT.npy...
//
// Each INPUT is a batch, float32 (N, C, H, W), 0..255. When the first one has been run it prints "ready", and then
// serves requests, one a line, whose words are separated by tabs; each has one line for an answer:
//
//   run         COUNT  NUMBER   reconstructs input NUMBER so many times: the seconds of the whole
//   encode      IN.npy OUT.npy  images to codes, in parts of the first input's size: "done"
//   reconstruct IN.npy OUT.npy  images to images, as they are timed, in parts as large: "done"
//
// It ends at the end of its input. Threads: OMP_NUM_THREADS, like reconstruct.

#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "vqvae/bundle.hpp"
#include "vqvae/error.hpp"
#include "vqvae/network.hpp"
#include "vqvae/npy.hpp"
#include "vqvae/tensor.hpp"

namespace {

struct Options {
  std::string bundle;
  std::string kernels = "mxnet";
  std::vector<std::string> inputs;
};

// The one place that knows what --kernels stands for.
vqvae::Network open(vqvae::Export files, const char* input, const std::string& kernels) {
  return {std::move(files), {input}, kernels == "fused" ? vqvae::Engine::kFused : vqvae::Engine::kCachedOp};
}

class Bench {
 public:
  explicit Bench(const Options& options)
      : Bench(vqvae::read_bundle(options.bundle, true), options.kernels, options.inputs) {}

  double run(std::size_t count, std::size_t number) {
    const vqvae::Inputs& images = inputs_.at(number);
    reconstruct(images);  // The caches are another's, and what is planned for a new shape is no part of its time.
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < count; ++i) reconstruct(images);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  void encode(const std::string& in, const std::string& out) {
    in_parts([this](const vqvae::Inputs& images) { return std::move(encoder_.run(images).at(0)); }, in, out);
  }

  void reconstruct(const std::string& in, const std::string& out) {
    in_parts([this](const vqvae::Inputs& images) { return reconstruct(images); }, in, out);
  }

 private:
  Bench(vqvae::Bundle bundle, const std::string& kernels, const std::vector<std::string>& inputs)
      : encoder_(open(std::move(bundle.encoder), vqvae::kImagesInput, kernels)),
        decoder_(open(std::move(bundle.decoder), vqvae::kCodesInput, kernels)) {
    for (const std::string& path : inputs) inputs_.push_back({{vqvae::kImagesInput, vqvae::read_npy(path)}});
    reconstruct(inputs_.front());
  }

  vqvae::Tensor reconstruct(const vqvae::Inputs& images) {
    std::vector<vqvae::Tensor> codes = encoder_.run(images);
    vqvae::Inputs inputs;
    inputs.emplace(vqvae::kCodesInput, std::move(codes.at(0)));
    std::vector<vqvae::Tensor> result = decoder_.run(inputs);
    return std::move(result.at(0));
  }

  void in_parts(const std::function<vqvae::Tensor(const vqvae::Inputs&)>& function, const std::string& in,
                const std::string& out) const {
    const vqvae::Tensor values = vqvae::read_npy(in);
    const std::int64_t size = inputs_.front().at(vqvae::kImagesInput).shape.at(0);
    vqvae::Tensor all;
    for (std::int64_t first = 0; first < values.shape.at(0); first += size) {
      const std::int64_t end = std::min(values.shape[0], first + size);
      vqvae::Tensor part = function({{vqvae::kImagesInput, vqvae::slice(values, first, end)}});
      if (first == 0) {
        all = std::move(part);
      } else {
        vqvae::append(&all, part);
      }
    }
    const vqvae::Bytes bytes = vqvae::npy_bytes(all);
    std::ofstream file(out, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw vqvae::RuntimeFailure(out, "cannot be written");
  }

  vqvae::Network encoder_;
  vqvae::Network decoder_;
  std::vector<vqvae::Inputs> inputs_;
};

void serve(Bench* bench) {
  std::cout << "ready" << '\n' << std::flush;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; std::getline(stream, word, '\t');) words.push_back(word);
    if (words.size() == 3 && words[0] == "run") {
      std::cout << std::setprecision(9) << bench->run(std::stoul(words[1]), std::stoul(words[2])) << '\n' << std::flush;
    } else if (words.size() == 3 && words[0] == "encode") {
      bench->encode(words[1], words[2]);
      std::cout << "done" << '\n' << std::flush;
    } else if (words.size() == 3 && words[0] == "reconstruct") {
      bench->reconstruct(words[1], words[2]);
      std::cout << "done" << '\n' << std::flush;
    } else {
      throw vqvae::UsageError("request", "is none that is known: " + line);
    }
  }
}

Options parse(int argc, char** argv) {
  Options options;
  CLI::App app("Time a bundle; vqvae-gluon bench starts this.", "measure");
  app.add_option("--bundle", options.bundle, "directory that 'vqvae-gluon export' wrote")->required();
  app.add_option("--kernels", options.kernels, "what computes the operators")
      ->check(CLI::IsMember({"mxnet", "fused"}))
      ->capture_default_str();
  app.add_option("INPUT", options.inputs, "batches, .npy files of float32 (N, C, H, W)")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    std::exit(app.exit(success));
  } catch (const CLI::ParseError& error) {
    throw vqvae::UsageError("options", error.what());
  }
  return options;
}

int fail(vqvae::ExitCode code, const std::string& message) {
  std::cerr << "measure: error: " + vqvae::one_line(message) + "\n" << std::flush;
  return static_cast<int>(code);
}

int guarded(int argc, char** argv) {
  try {
    Bench bench(parse(argc, argv));
    serve(&bench);
    return 0;
  } catch (const vqvae::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(vqvae::ExitCode::kFailed, "memory: there is not enough of it");
  } catch (const std::exception& error) {
    return fail(vqvae::ExitCode::kFailed, std::string("internal: ") + error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  // As reconstruct does: memory that was freed is kept.
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  const int code = guarded(argc, argv);
  std::cout.flush();
  std::_Exit(code);  // MXNet's threads may still use what the end of a program takes down.
}
