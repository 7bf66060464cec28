// Reconstruct images through the VQ-VAE of a bundle, or record the run of any Gluon export.

#include <malloc.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "isolation.hpp"
#include "notes.hpp"
#include "options.hpp"
#include "plain.hpp"
#include "reconstruction.hpp"
#include "results.hpp"
#include "vqvae/bundle.hpp"
#include "vqvae/error.hpp"
#include "vqvae/graph.hpp"
#include "vqvae/limits.hpp"
#include "vqvae/predictor.hpp"
#include "vqvae/threads.hpp"

namespace {

constexpr const char* kNoMemory = "memory: there is not enough of it";

vqvae::Predictor open(const Options& options) {
  vqvae::Bundle bundle = vqvae::read_bundle(options.bundle, !options.no_verify);
  const std::string note = fusion_note(options, {&bundle.encoder.graph, &bundle.decoder.graph});
  // A trace is of one run.
  const std::size_t limit = options.trace.empty() ? options.memory_limit() : 0;
  const bool prove = options.trace.empty() || !options.no_verify;  // Of an altered bundle the numbers are wanted.
  vqvae::Predictor predictor(std::move(bundle), options.engine_kind(), options.fusion_kind(), limit, prove);
  std::cerr << note;
  return predictor;
}

void run(const Options& options) {
  vqvae::bound_runs(options.memory_limit());
  if (options.threads > 0) vqvae::use_threads(options.threads);
  for (const std::string& name : options.allowed_operators) {
    if (!vqvae::is_operator(name)) {
      throw vqvae::UsageError("--allow-operator", "MXNet has no operator '" + name + "'; take the name from the error");
    }
    vqvae::trust_operator(name);
    std::cerr << vqvae::one_line("reconstruct: warning: the operator " + name +
                                 " is run where a graph holds it, whatever it does (--allow-operator)")
              << '\n';
  }
  if (options.is_plain()) {
    trace_export(options);
    return;
  }
  const Clock clock;
  vqvae::Predictor predictor = open(options);
  Results results(options, predictor, clock.seconds());
  if (!options.trace.empty()) {
    trace_images(options, &predictor, &results);
  } else if (!options.decode.empty()) {
    decode_files(options, &predictor, &results);
  } else {
    reconstruct_images(options, &predictor, &results);
  }
  results.finish();
}

int fail(vqvae::ExitCode code, const std::string& message) {
  std::cout.flush();
  // In one piece, whatever else is written there.
  std::cerr << "reconstruct: error: " + vqvae::one_line(message) + "\n" << std::flush;
  return static_cast<int>(code);
}

int run_guarded(const Options& options) {
  try {
    run(options);
    return 0;
  } catch (const vqvae::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(vqvae::ExitCode::kFailed, kNoMemory);
  } catch (const std::exception& error) {
    return fail(vqvae::ExitCode::kFailed, std::string("internal: ") + error.what());
  }
}

// A trace that a crash left without its index is no trace.
void remove_unfinished(const Options& options, bool is_new) {
  std::error_code ignored;
  if (is_new && !options.trace.empty()) std::filesystem::remove_all(options.trace, ignored);
}

int start(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  std::error_code ignored;
  const bool is_new = !std::filesystem::exists(options.trace, ignored);
  const int code =
      isolated(options.is_plain() ? options.symbol : options.bundle, [&options] { return run_guarded(options); });
  if (code != 0) remove_unfinished(options, is_new);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  // Memory that was freed is kept: fresh pages for every large tensor take a tenth of the time of a traced run.
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  // A file that may not grow (ulimit -f) is an error like any other of writing.
  static_cast<void>(std::signal(SIGXFSZ, SIG_IGN));
  int code = 0;
  try {
    code = start(argc, argv);
  } catch (const Ended& ended) {
    code = ended.code();
  } catch (const vqvae::Error& error) {
    code = fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    code = fail(vqvae::ExitCode::kFailed, kNoMemory);
  } catch (const std::exception& error) {
    code = fail(vqvae::ExitCode::kFailed, std::string("internal: ") + error.what());
  }
  if (!std::cout.flush() && code == 0) {
    code = fail(vqvae::ExitCode::kFailed, "standard output: could not be written");
  }
  // MXNet's threads may still use what the end of a program takes down.
  std::_Exit(code);
}
