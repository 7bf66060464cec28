// What the program says of its work: names of files, a count on a terminal, or one JSON object.
#ifndef VQVAE_TOOLS_RESULTS_HPP_
#define VQVAE_TOOLS_RESULTS_HPP_

#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "options.hpp"
#include "vqvae/predictor.hpp"
#include "vqvae/tensor.hpp"

// Seconds since it was made.
class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A count on the terminal for work that takes longer than two seconds.
class Progress {
 public:
  explicit Progress(bool quiet);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();
  void show(const std::string& text);

 private:
  bool wanted_;
  std::size_t shown_ = 0;  // Letters of the last text.
  Clock clock_;
};

// The result of one image.
struct Result {
  std::string source;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::string output;  // Files that were written; empty for none.
  std::string codes;
  double squared_error = -1;  // The mean over the values, as 0..255; below 0 if there is nothing to compare.
};

class Results {
 public:
  Results(const Options& options, const vqvae::Predictor& predictor, double open_seconds);

  // A file was written.
  void wrote(const std::string& path);
  void add(const Result& result) { results_.push_back(result); }
  // Seconds that the runs of some images took, one for each repetition.
  void took(std::size_t images, const std::vector<double>& seconds);
  // Print what is to be printed at the end. Throws RuntimeFailure if standard output could not be written.
  void finish() const;

 private:
  const Options& options_;
  nlohmann::ordered_json head_;
  std::vector<Result> results_;
  std::vector<std::string> written_;
  std::vector<double> seconds_;  // Of each repetition of everything.
  std::size_t images_ = 0;
  Clock clock_;
};

#endif  // VQVAE_TOOLS_RESULTS_HPP_
