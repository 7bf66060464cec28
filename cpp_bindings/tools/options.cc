#include "options.hpp"

#include <CLI/CLI.hpp>
#include <map>

#include "vqvae/error.hpp"

namespace {

constexpr const char* kExamples =
    "\nexamples:\n"
    "  reconstruct --bundle pretrained/mnist digit.png\n"
    "  reconstruct --bundle pretrained/mnist --output out --grid sheet.png digits/\n"
    "  curl -s https://example.org/photo.jpg | reconstruct --bundle photos --memory 1024 -\n"
    "  reconstruct --bundle pretrained/mnist --codes codes digits/\n"
    "  reconstruct --bundle pretrained/mnist --decode codes --output decoded\n"
    "  reconstruct --bundle pretrained/mnist --engine fused --codes digits.npy digits.npy\n"
    "  reconstruct --bundle pretrained/mnist --json --repeat 10 --threads 2 digits.npy\n"
    "  reconstruct --bundle pretrained/mnist --trace trace digits.npy\n"
    "  reconstruct --symbol net-symbol.json --params net-0000.params --input data=batch.npy --trace trace\n"
    "  reconstruct --symbol net-symbol.json --params net-0000.params --input data=batch.npy --trace trace \\\n"
    "              --engine executor --fusion mxnet --taps none\n"
    "\nexit codes: 0 done, 1 failed, 2 usage, 3 a bundle, image or other input was rejected\n";

struct EngineChoice {
  vqvae::Engine engine;
  const char* runtime;
};

const std::map<std::string, EngineChoice>& engines() {
  static const std::map<std::string, EngineChoice> choices = {{"cachedop", {vqvae::Engine::kCachedOp, "cpp"}},
                                                              {"executor", {vqvae::Engine::kExecutor, "cpp-executor"}},
                                                              {"fused", {vqvae::Engine::kFused, "cpp-fused"}},
                                                              {"predict", {vqvae::Engine::kPredict, "cpp-predict"}}};
  return choices;
}

void add_options(CLI::App* app, Options* options) {
  constexpr int kMax = 1 << 20;
  app->footer(kExamples);
  app->set_version_flag("--version", "reconstruct " VQVAE_VERSION);
  app->add_option("IMAGE", options->images,
                  "PNG or JPEG files of any size, directories of them, uint8 .npy files (N, H, W[, C]), or - for "
                  "standard input");
  app->add_option("--bundle", options->bundle, "directory that 'vqvae-gluon export' wrote");
  app->add_flag("--no-verify", options->no_verify,
                "skip the digests and the search for NaN, not the structural checks; the bundle may lack a manifest");
  app->add_option("--output", options->output,
                  "directory for <image name>.png (default: reconstructions; with --codes: no images)");
  app->add_option("--codes", options->codes,
                  "write the codes: FILE.npy or FILE.vq for images of one size, or a directory for <image name>.vq");
  app->add_option("--decode", options->decode, "instead of images, decode .vq or .npy files, directories of .vq, or -");
  app->add_option("--grid", options->grid, "write a PNG of the first 64 images, each above its reconstruction");
  app->add_flag("--json", options->json, "print one JSON object: what was written, errors, times");
  app->add_flag("--quiet", options->quiet, "print nothing but errors");
  app->add_option("--threads", options->threads, "threads (default: one for each processor)")
      ->check(CLI::Range(1, 1024))
      ->group("Running");
  app->add_option("--batch", options->batch, "images at once")
      ->check(CLI::Range(1, kMax))
      ->capture_default_str()
      ->group("Running");
  app->add_option("--memory", options->memory,
                  "MiB for the tensors of a run (default: " + std::to_string(kBundleMemory) +
                      ", and larger images are run in tiles; " + std::to_string(kPlainMemory) +
                      " for a plain export; more for the images of a trace)")
      ->check(CLI::Range(1, kMax))
      ->group("Running");
  app->add_option("--allow-operator", options->allowed_operators,
                  "an MXNet operator that the graphs may hold although it is refused, for files that you trust; "
                  "several times")
      ->allow_extra_args(false)
      ->group("Running");
  app->add_option("--repeat", options->repeat, "run everything so many times, for times; all must give the same bits")
      ->check(CLI::Range(1, kMax))
      ->capture_default_str()
      ->group("Running");
  std::vector<std::string> names;
  for (const auto& [name, choice] : engines()) names.push_back(name);
  app->add_option(
         "--engine", options->engine,
         "what runs the graphs: cachedop gives Gluon's bits; fused is this project's fast operators; executor and "
         "predict are MXNet's, which fuses")
      ->check(CLI::IsMember(names))
      ->capture_default_str()
      ->group("Running");
  app->add_option("--fusion", options->fusion,
                  "safe: none where MXNet computes a graph wrongly for it, nor with taps; mxnet: always")
      ->check(CLI::IsMember({"safe", "mxnet"}))
      ->capture_default_str()
      ->group("Running");
  app->add_option("--trace", options->trace, "directory to record every node's output in, of one batch")
      ->group("Traces and plain exports");
  app->add_option("--taps", options->taps, "all: record every node; none: what the graphs as deployed give")
      ->check(CLI::IsMember({"all", "none"}))
      ->capture_default_str()
      ->group("Traces and plain exports");
  app->add_option("--symbol", options->symbol, "a plain Gluon export: its -symbol.json")
      ->group("Traces and plain exports");
  app->add_option("--params", options->params, "its .params")->group("Traces and plain exports");
  app->add_option("--input", options->inputs, "what to feed: NAME=FILE.npy, several times")
      ->group("Traces and plain exports");
  app->add_option("--stage", options->stage, "what the trace calls the graph")
      ->group("Traces and plain exports")
      ->capture_default_str();
  app->add_option("--keep", options->keep, "file of names, one a line: write the values of these tensors alone")
      ->group("Traces and plain exports");
}

void check_plain(const Options& options) {
  if (options.symbol.empty() || options.params.empty() || options.trace.empty()) {
    throw vqvae::UsageError("options", "a plain export takes --symbol, --params, --trace, and mostly --input");
  }
  if (!options.images.empty() || !options.decode.empty() || !options.codes.empty() || !options.grid.empty() ||
      options.json || options.repeat > 1) {
    throw vqvae::UsageError("options", "images, codes, --grid, --json and --repeat are for bundles");
  }
}

void check_bundle(const Options& options) {
  if (!options.keep.empty()) throw vqvae::UsageError("--keep", "is for plain exports");
  if (options.images.empty() == options.decode.empty()) {
    throw vqvae::UsageError(
        "IMAGE", options.images.empty() ? "at least one is needed, or --decode" : "and --decode do not go together");
  }
  const bool decodes = !options.decode.empty();
  if (decodes && !(options.codes.empty() && options.grid.empty() && options.trace.empty())) {
    throw vqvae::UsageError("--decode", "does not go together with --codes, --grid and --trace");
  }
  if (!options.trace.empty() &&
      (!options.codes.empty() || !options.grid.empty() || options.json || options.repeat > 1)) {
    throw vqvae::UsageError("--trace", "does not go together with --codes, --grid, --json and --repeat");
  }
}

}  // namespace

vqvae::Engine Options::engine_kind() const { return engines().at(engine).engine; }
std::size_t Options::memory_limit() const {
  const int by_default = is_plain() ? kPlainMemory : kBundleMemory;
  return static_cast<std::size_t>(memory > 0 ? memory : by_default) << 20U;
}
const char* Options::runtime() const { return engines().at(engine).runtime; }
vqvae::Fusion Options::fusion_kind() const { return fusion == "safe" ? vqvae::Fusion::kSafe : vqvae::Fusion::kMXNet; }

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app("Reconstruct images through the VQ-VAE of a bundle.", "reconstruct");
  add_options(&app, &options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    throw Ended(app.exit(success));
  } catch (const CLI::ParseError& error) {
    throw vqvae::UsageError("options", error.what());
  }
  const bool plain = !options.symbol.empty() || !options.params.empty() || !options.inputs.empty();
  if (plain == !options.bundle.empty()) {
    throw vqvae::UsageError("options", "give --bundle and images, or --symbol, --params, --input and --trace");
  }
  plain ? check_plain(options) : check_bundle(options);
  return options;
}
