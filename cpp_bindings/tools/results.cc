#include "results.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "vqvae/error.hpp"

namespace {

using Json = nlohmann::ordered_json;

constexpr double kPatience = 2;  // seconds

// Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared error); null where the error is 0 or not known.
Json psnr(double squared_error) {
  return squared_error > 0 ? Json(10 * std::log10(255.0 * 255.0 / squared_error)) : Json(nullptr);
}

Json optional(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

}  // namespace

Progress::Progress(bool quiet) : wanted_(!quiet && isatty(STDERR_FILENO) != 0) {}
Progress::~Progress() {
  if (shown_ > 0) std::cerr << "\n";
}

void Progress::show(const std::string& text) {
  if (!wanted_ || (shown_ == 0 && clock_.seconds() < kPatience)) return;
  const std::string line = vqvae::one_line(text);
  const std::string blank(shown_ > line.size() ? shown_ - line.size() : 0, ' ');
  std::cerr << "\rreconstruct: " << line << blank << std::flush;
  shown_ = line.size();
}

Results::Results(const Options& options, const vqvae::Predictor& predictor, double open_seconds) : options_(options) {
  const char* threads = std::getenv("OMP_NUM_THREADS");
  head_["bundle"] = options.bundle;
  head_["digest"] = predictor.digest();
  head_["engine"] = options.engine;
  head_["threads"] = threads == nullptr ? Json(nullptr) : Json(std::strtol(threads, nullptr, 10));
  head_["batch"] = options.batch;
  head_["open_seconds"] = open_seconds;
}

void Results::wrote(const std::string& path) {
  written_.push_back(path);
  if (!options_.quiet && !options_.json) std::cout << vqvae::one_line(path) << "\n";
}

void Results::took(std::size_t images, const std::vector<double>& seconds) {
  images_ += images;
  seconds_.resize(std::max(seconds_.size(), seconds.size()));
  for (std::size_t i = 0; i < seconds.size(); ++i) seconds_[i] += seconds[i];
}

void Results::finish() const {
  if (options_.json) {
    Json report = head_;
    report["run_seconds"] = seconds_;
    const auto fastest = std::min_element(seconds_.begin(), seconds_.end());
    report["images_per_second"] =
        fastest == seconds_.end() || *fastest <= 0 ? Json(nullptr) : Json(static_cast<double>(images_) / *fastest);
    report["total_seconds"] = clock_.seconds() + head_.at("open_seconds").get<double>();
    report["files"] = written_;
    report["images"] = Json::array();
    for (const Result& result : results_) {
      Json row;
      row["source"] = result.source;
      row["height"] = result.height;
      row["width"] = result.width;
      row["output"] = optional(result.output);
      row["codes"] = optional(result.codes);
      row["mean_squared_error"] = result.squared_error < 0 ? Json(nullptr) : Json(result.squared_error);
      row["psnr"] = psnr(result.squared_error);
      report["images"].push_back(row);
    }
    // Names of files are any bytes; of their characters a terminal sees escapes alone.
    std::cout << report.dump(2, ' ', true, Json::error_handler_t::replace) << "\n";
  }
  if (!std::cout.flush()) throw vqvae::RuntimeFailure("standard output", "could not be written");
}
