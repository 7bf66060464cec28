// What the command line asks for.
#ifndef VQVAE_TOOLS_OPTIONS_HPP_
#define VQVAE_TOOLS_OPTIONS_HPP_

#include <cstddef>
#include <exception>
#include <string>
#include <vector>

#include "vqvae/network.hpp"

constexpr int kBundleMemory = 512;  // MiB
constexpr int kPlainMemory = 4096;  // Nothing is run in tiles.

struct Options {
  std::vector<std::string> images;
  std::vector<std::string> decode;
  std::string bundle;
  bool no_verify = false;
  std::string output;  // Empty: the default, or nothing where codes are asked for.
  std::string codes;
  std::string grid;
  std::string trace;
  std::string engine = "cachedop";
  std::string fusion = "safe";
  std::string taps = "all";
  int threads = 0;  // 0: all processors.
  int batch = 64;
  int repeat = 1;
  int memory = 0;  // MiB; 0: kBundleMemory or kPlainMemory.
  std::vector<std::string> allowed_operators;
  bool json = false;
  bool quiet = false;
  std::string symbol;  // From here on: plain exports.
  std::string params;
  std::vector<std::string> inputs;
  std::string stage = "graph";
  std::string keep;

  bool is_plain() const { return bundle.empty(); }
  bool wants_images() const { return !output.empty() || codes.empty(); }
  std::string directory() const { return output.empty() ? "reconstructions" : output; }
  vqvae::Engine engine_kind() const;
  const char* runtime() const;  // What a trace calls the engine.
  vqvae::Fusion fusion_kind() const;
  bool wants_taps() const { return taps == "all"; }
  std::size_t memory_limit() const;
};

// Where the command line ends the program itself: --help, --version, or words that do not fit.
class Ended : public std::exception {
 public:
  explicit Ended(int code) : code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

// Read the command line. Throws Ended, and UsageError.
Options parse_options(int argc, char** argv);

#endif  // VQVAE_TOOLS_OPTIONS_HPP_
