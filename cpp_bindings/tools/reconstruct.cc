// reconstruct: a bundle and images in, reconstructed images out. Also runs a plain Gluon export on .npy files, to
// record a trace of it.

#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "vqvae/bundle.hpp"
#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/fusion.hpp"
#include "vqvae/image.hpp"
#include "vqvae/network.hpp"
#include "vqvae/npy.hpp"
#include "vqvae/predictor.hpp"
#include "vqvae/trace.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxImageBytes = std::size_t{1} << 30;
constexpr std::int64_t kBatchSize = 64;
constexpr std::size_t kMaxKeepBytes = std::size_t{1} << 28;
constexpr const char* kAllTaps = "all";
constexpr const char* kNoTaps = "none";
constexpr const char* kExamples =
    "\nexamples:\n"
    "  reconstruct --bundle pretrained/mnist digit.png\n"
    "  reconstruct --bundle pretrained/mnist --output out digits/*.png\n"
    "  reconstruct --bundle pretrained/mnist --trace trace digits.npy\n"
    "  reconstruct --symbol net-symbol.json --params net-0000.params --input data=batch.npy --trace trace\n"
    "  reconstruct --symbol net-symbol.json --params net-0000.params --input data=batch.npy --trace trace \\\n"
    "              --engine executor --fusion mxnet --taps none\n"
    "\nexit codes: 0 done, 1 failed, 2 usage, 3 a bundle, image or other input was rejected\n";

struct EngineChoice {
  vqvae::Engine engine;
  const char* runtime;  // What a trace calls it.
};
const std::map<std::string, EngineChoice>& engines() {
  static const std::map<std::string, EngineChoice> choices = {{"cachedop", {vqvae::Engine::kCachedOp, "cpp"}},
                                                              {"executor", {vqvae::Engine::kExecutor, "cpp-executor"}},
                                                              {"predict", {vqvae::Engine::kPredict, "cpp-predict"}}};
  return choices;
}

constexpr const char* kSafeFusion = "safe";
constexpr const char* kMXNetFusion = "mxnet";

struct Options {
  std::string bundle;
  bool no_verify = false;
  std::string output = "reconstructions";
  std::vector<std::string> images;
  std::string symbol;
  std::string params;
  std::vector<std::string> inputs;
  std::string stage = "graph";
  std::string trace;
  std::string engine = "cachedop";
  std::string fusion = kSafeFusion;
  std::string taps = kAllTaps;
  std::string keep;
};

vqvae::Fusion fusion(const Options& options) {
  return options.fusion == kSafeFusion ? vqvae::Fusion::kSafe : vqvae::Fusion::kMXNet;
}

// Say so if MXNet's fusion would compute a graph wrongly.
void note_fusion(const Options& options, const std::vector<const vqvae::Graph*>& graphs) {
  const char* chosen = vqvae::fusion_is_chosen() ? std::getenv(vqvae::kFusionVariable) : "";
  if (fusion(options) == vqvae::Fusion::kMXNet || std::string(chosen) == "NONE") return;
  if (engines().at(options.engine).engine == vqvae::Engine::kCachedOp) return;
  std::string first;
  std::size_t more = 0;
  for (const vqvae::Graph* graph : graphs) {
    for (const std::string& node : vqvae::misfused(*graph)) {
      if (first.empty()) {
        first = node + " of " + graph->name;
      } else {
        ++more;
      }
    }
  }
  if (first.empty()) return;
  if (more > 0) first += " and " + std::to_string(more) + " more";
  std::cerr << "reconstruct: note: "
            << (*chosen == '\0' ? "fusion is off, for MXNet would compute " + first + " wrongly\n"
                                : std::string(vqvae::kFusionVariable) + "=" + chosen + " may compute " + first +
                                      " wrongly; unset it\n");
}

// Images that are run at once, and the files their reconstructions go to.
struct Batch {
  vqvae::Tensor images;
  std::vector<fs::path> outputs;
};

// A counter on the terminal for work that takes longer than two seconds.
class Progress {
 public:
  void add(std::size_t count) {
    done_ += count;
    const auto elapsed = std::chrono::steady_clock::now() - start_;
    if (isatty(STDERR_FILENO) == 0 || elapsed < std::chrono::seconds(2)) return;
    std::cerr << "\rreconstruct: " << done_ << " images" << std::flush;
    shown_ = true;
  }
  void finish() const {
    if (shown_) std::cerr << "\n";
  }

 private:
  std::size_t done_ = 0;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// The images of one argument: one of a PNG or JPEG file, N of an .npy file.
vqvae::Tensor read_images(const fs::path& path, std::int64_t channels) {
  if (path.extension() != ".npy") {
    return vqvae::decode_image(vqvae::read_file(path, kMaxImageBytes), static_cast<int>(channels), path.string());
  }
  vqvae::Tensor images = vqvae::read_npy(path);
  if (images.shape.size() == 3) images.shape.push_back(1);
  return images;
}

// Where the reconstructions of an argument go: <name>.png, or <name>-<number>.png for each image of an .npy file.
std::vector<fs::path> output_paths(const Options& options, const fs::path& image, std::int64_t count) {
  const std::string stem = (fs::path(options.output) / image.stem()).string();
  if (image.extension() != ".npy") return {stem + ".png"};
  std::vector<fs::path> paths;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string number = std::to_string(i);
    paths.emplace_back(stem + "-" + std::string(5 - std::min<std::size_t>(5, number.size()), '0') + number + ".png");
  }
  return paths;
}

bool same_size(const vqvae::Tensor& a, const vqvae::Tensor& b) {
  return std::equal(a.shape.begin() + 1, a.shape.end(), b.shape.begin() + 1, b.shape.end());
}

class Reconstruction {
 public:
  explicit Reconstruction(const Options& options) : options_(options), predictor_(open(options)) {}

  void run() {
    vqvae::make_directory(options_.output);
    for (const std::string& name : options_.images) taken_.insert(fs::weakly_canonical(name));
    for (const std::string& name : options_.images) {
      vqvae::Tensor images = read_images(name, predictor_.channels());
      predictor_.check_images(images, name);
      const std::vector<fs::path> outputs = output_paths(options_, name, images.shape[0]);
      take(name, outputs);
      const bool fits = batch_.outputs.empty() || same_size(batch_.images, images);
      const bool full = batch_.outputs.size() >= static_cast<std::size_t>(kBatchSize);
      if (!options_.trace.empty() && !fits) {
        throw vqvae::InputError(name, "is not of the size of the images before it; a trace is of one batch");
      }
      if (!fits || (full && options_.trace.empty())) flush();
      if (batch_.outputs.empty()) {
        batch_.images = std::move(images);
      } else {
        vqvae::append(&batch_.images, images);
      }
      batch_.outputs.insert(batch_.outputs.end(), outputs.begin(), outputs.end());
    }
    flush();
    progress_.finish();
    if (!std::cout.flush()) throw vqvae::RuntimeFailure("standard output", "could not be written");
  }

 private:
  static vqvae::Predictor open(const Options& options) {
    vqvae::Bundle bundle = vqvae::read_bundle(options.bundle, !options.no_verify);
    note_fusion(options, {&bundle.encoder.graph, &bundle.decoder.graph});
    return vqvae::Predictor(std::move(bundle), engines().at(options.engine).engine, fusion(options));
  }

  // Nothing that was given or written is overwritten.
  void take(const std::string& name, const std::vector<fs::path>& outputs) {
    for (const fs::path& path : outputs) {
      if (!taken_.insert(fs::weakly_canonical(path)).second) {
        throw vqvae::UsageError(path.string(),
                                "would be overwritten by the reconstruction of " + name + "; choose another --output");
      }
    }
  }

  void flush() {
    if (options_.trace.empty()) {
      const std::int64_t count = batch_.images.shape[0];
      for (std::int64_t begin = 0; begin < count; begin += kBatchSize) {
        const std::int64_t end = std::min(begin + kBatchSize, count);
        write(predictor_.reconstruct(vqvae::slice(batch_.images, begin, end)), begin);
      }
    } else {
      vqvae::TraceWriter trace(options_.trace, engines().at(options_.engine).runtime);
      write(predictor_.reconstruct(batch_.images, &trace, options_.taps == kAllTaps), 0);
      trace.close();
    }
    batch_ = {};
  }

  void write(const vqvae::Tensor& images, std::int64_t offset) {
    for (std::int64_t i = 0; i < images.shape[0]; ++i) {
      const fs::path& path = batch_.outputs[static_cast<std::size_t>(offset + i)];
      vqvae::write_file(path, vqvae::encode_png(images, i));
      std::cout << path.string() << "\n";
    }
    progress_.add(static_cast<std::size_t>(images.shape[0]));
  }

  const Options& options_;
  vqvae::Predictor predictor_;
  std::set<fs::path> taken_;
  Batch batch_;
  Progress progress_;
};

// The names in a file, one a line.
std::set<std::string> read_names(const fs::path& path) {
  const vqvae::Bytes bytes = vqvae::read_file(path, kMaxKeepBytes);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::set<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.insert(line);
  }
  return names;
}

// Where NAME=FILE is split: names and files may hold a '=' themselves, so at the first one that a file follows.
std::size_t split_at(const std::string& input) {
  const std::size_t first = input.find('=');
  std::error_code ignored;
  for (std::size_t at = first; at != std::string::npos; at = input.find('=', at + 1)) {
    if (fs::is_regular_file(input.substr(at + 1), ignored)) return at;
  }
  return first;
}

void trace_export(const Options& options) {
  vqvae::Inputs inputs;
  std::vector<std::string> names;
  for (const std::string& input : options.inputs) {
    const std::size_t equals = split_at(input);
    if (equals == std::string::npos) throw vqvae::UsageError("--input", "takes NAME=FILE.npy, not " + input);
    names.push_back(input.substr(0, equals));
    if (!inputs.emplace(names.back(), vqvae::read_npy(input.substr(equals + 1))).second) {
      throw vqvae::UsageError("--input", "feeds " + names.back() + " twice");
    }
  }
  std::optional<std::set<std::string>> kept;
  if (!options.keep.empty()) kept = read_names(options.keep);
  const EngineChoice& choice = engines().at(options.engine);
  vqvae::Export files = vqvae::read_export(options.symbol, options.params);
  note_fusion(options, {&files.graph});
  vqvae::Network network(std::move(files), names, choice.engine, fusion(options));
  vqvae::TraceWriter trace(options.trace, choice.runtime);
  if (kept) trace.keep_only(std::move(*kept));
  if (options.taps == kAllTaps) {
    for (const std::string& name : names) trace.add(options.stage, name, "input", inputs[name]);
    network.taps(inputs, [&](const vqvae::Tap& tap) { trace.add(options.stage, tap.name, tap.op, tap.value); });
  } else {
    std::set<std::string> recorded;  // One output may be an output of the graph twice.
    network.run(inputs, [&](const vqvae::Tap& tap) {
      if (recorded.insert(tap.name).second) trace.add(options.stage, tap.name, tap.op, tap.value);
    });
  }
  trace.close();
}

void check_options(const Options& options) {
  const bool plain = !options.symbol.empty() || !options.params.empty() || !options.inputs.empty();
  if (plain == !options.bundle.empty()) {
    throw vqvae::UsageError("options", "give --bundle and images, or --symbol, --params, --input and --trace");
  }
  if (plain) {
    if (options.symbol.empty() || options.params.empty() || options.trace.empty()) {
      throw vqvae::UsageError("options", "a plain export takes --symbol, --params, --trace, and mostly --input");
    }
    return;
  }
  if (!options.keep.empty()) throw vqvae::UsageError("--keep", "is for plain exports");
  if (options.images.empty()) throw vqvae::UsageError("IMAGE", "at least one is needed");
}

void add_options(CLI::App* app, Options* options) {
  app->footer(kExamples);
  app->set_version_flag("--version", "reconstruct " VQVAE_VERSION);
  app->add_option("IMAGE", options->images, "PNG or JPEG files, or uint8 .npy files (N, H, W[, C])");
  app->add_option("--bundle", options->bundle, "directory that 'vqvae-gluon export' wrote");
  app->add_flag("--no-verify", options->no_verify,
                "skip the digests and the search for NaN, not the structural checks");
  app->add_option("--output", options->output, "directory for <image name>.png")->capture_default_str();
  app->add_option("--trace", options->trace, "directory to record every node's output in");
  std::vector<std::string> names;
  for (const auto& [name, choice] : engines()) names.push_back(name);
  app->add_option("--engine", options->engine, "what runs the graphs; the last two fuse operators")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  app->add_option("--fusion", options->fusion,
                  "safe: none where MXNet computes a graph wrongly for it, nor with taps; mxnet: always")
      ->check(CLI::IsMember({kSafeFusion, kMXNetFusion}))
      ->capture_default_str();
  app->add_option("--taps", options->taps, "all: record every node; none: what the graphs as deployed give")
      ->check(CLI::IsMember({kAllTaps, kNoTaps}))
      ->capture_default_str();
  app->add_option("--symbol", options->symbol, "a plain Gluon export: its -symbol.json")->group("Plain exports");
  app->add_option("--params", options->params, "its .params")->group("Plain exports");
  app->add_option("--input", options->inputs, "what to feed: NAME=FILE.npy, several times")->group("Plain exports");
  app->add_option("--stage", options->stage, "what the trace calls the graph")
      ->group("Plain exports")
      ->capture_default_str();
  app->add_option("--keep", options->keep, "file of names, one a line: write the values of these tensors alone")
      ->group("Plain exports");
}

int fail(vqvae::ExitCode code, const std::string& message) {
  std::cerr << "reconstruct: error: " << message << "\n";
  return static_cast<int>(code);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Reconstruct images through the VQ-VAE of a bundle.", "reconstruct");
  add_options(&app, &options);
  try {
    app.parse(argc, argv);
    check_options(options);
    if (options.bundle.empty()) {
      trace_export(options);
    } else {
      Reconstruction(options).run();
    }
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return fail(vqvae::ExitCode::kUsage, std::string("options: ") + error.what());
  } catch (const vqvae::Error& error) {
    return fail(error.code(), error.what());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // Memory that was freed is kept: fresh pages for every large tensor take a tenth of the time of a traced run.
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    return fail(vqvae::ExitCode::kFailed, "memory: there is not enough of it");
  } catch (const std::exception& error) {
    return fail(vqvae::ExitCode::kFailed, std::string("internal: ") + error.what());
  }
}
