#include "reconstruction.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

#include "sheet.hpp"
#include "sources.hpp"
#include "vqvae/codes.hpp"
#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/image.hpp"
#include "vqvae/limits.hpp"
#include "vqvae/npy.hpp"

namespace {

namespace fs = std::filesystem;
using vqvae::Tensor;

constexpr const char* kArray = ".npy";
constexpr const char* kPacked = ".vq";

// Images of one source, and where their results go.
struct Item {
  Source source;
  std::int64_t count = 0;
  std::vector<fs::path> outputs;
  fs::path codes;  // A file of this source alone; empty if there is none.
};

struct Batch {
  Tensor images;
  std::vector<Item> items;

  std::int64_t count() const { return items.empty() ? 0 : images.shape[0]; }
};

bool same_size(const Tensor& a, const Tensor& b) {
  return std::equal(a.shape.begin() + 1, a.shape.end(), b.shape.begin() + 1, b.shape.end());
}

std::string size_of(const Tensor& images) {
  return std::to_string(images.shape[2]) + "x" + std::to_string(images.shape[1]);
}

void write_new(const fs::path& path, const vqvae::Bytes& bytes, Results* results) {
  if (path.has_parent_path()) vqvae::make_directory(path.parent_path());
  vqvae::write_file(path, bytes);
  results->wrote(path.string());
}

double squared_error(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.data.size(); ++i) {
    const double difference = static_cast<double>(a.data[i]) - static_cast<double>(b.data[i]);
    sum += difference * difference;
  }
  return sum / static_cast<double>(a.data.size());
}

// Do the same work several times; it must come to the same bits. Gives the result and the seconds of each time.
template <typename Work>
auto repeat(int times, std::vector<double>* seconds, const Work& work) {
  const auto timed = [&] {
    const Clock clock;
    auto result = work();
    seconds->push_back(clock.seconds());
    return result;
  };
  auto first = timed();
  for (int i = 1; i < times; ++i) {
    if (!(timed() == first)) throw vqvae::RuntimeFailure("--repeat", "two runs gave different bits");
  }
  return first;
}

// What a run gives: codes (N, h, w), and images (N, H, W, C) if they are wanted.
struct Run {
  Tensor codes;
  Tensor images;

  bool operator==(const Run& other) const { return codes.data == other.codes.data && images.data == other.images.data; }
};

class Reconstruction {
 public:
  Reconstruction(const Options& options, vqvae::Predictor* predictor, Results* results)
      : options_(options),
        predictor_(*predictor),
        results_(*results),
        sources_(find_sources(options.images, image_extensions())),
        claims_(sources_),
        progress_(options.quiet) {
    const std::string extension = fs::path(options.codes).extension().string();
    one_file_ = extension == kArray || extension == kPacked;
    if (one_file_) claims_.claim(options.codes, "codes", options.images.front());
    if (!options.grid.empty()) claims_.claim(options.grid, "sheet", options.images.front());
    predictor_.set_progress([this](std::size_t done, std::size_t total) {
      progress_.show("part " + std::to_string(done) + " of " + std::to_string(total) + ", file " +
                     std::to_string(done_ + 1) + " of " + std::to_string(sources_.size()));
    });
    if (options.wants_images()) vqvae::make_directory(options.directory());
  }

  void run() {
    try {
      for (const Source& source : sources_) take(source);
    } catch (const vqvae::Error&) {
      flush();  // What came before is not lost.
      throw;
    }
    flush();
    if (one_file_) write_all_codes();
    if (!options_.grid.empty()) write_new(options_.grid, vqvae::encode_png(sheet_.draw(), 0), &results_);
    predictor_.set_progress(nullptr);
  }

 private:
  void take(const Source& source) {
    Images images = read_images(source, predictor_.channels());
    predictor_.check_images(images.values, source.title());
    Item item{source, images.values.shape[0], {}, {}};
    if (options_.wants_images()) {
      item.outputs = output_paths(fs::path(options_.directory()) / source.place, item.count, images.numbered);
      for (const fs::path& path : item.outputs) claims_.claim(path, "reconstruction", source.title());
    }
    if (one_file_ && !first_.data.empty() && !same_size(first_, images.values)) {
      throw vqvae::InputError(source.title(), "is " + size_of(images.values) + ", but the images before it are " +
                                                  size_of(first_) + "; one file of codes is of images of one size");
    }
    if (!options_.codes.empty() && !one_file_) {
      item.codes = fs::path(options_.codes) / (source.place.string() + kPacked);
      claims_.claim(item.codes, "codes", source.title());
    }
    if (one_file_ && first_.data.empty()) first_ = vqvae::slice(images.values, 0, 1);
    const bool fits = batch_.items.empty() ||
                      (same_size(batch_.images, images.values) && batch_.count() + item.count <= options_.batch);
    if (!fits) flush();
    if (batch_.items.empty()) {
      batch_.images = std::move(images.values);
    } else {
      vqvae::append(&batch_.images, images.values);
    }
    batch_.items.push_back(std::move(item));
    if (batch_.count() >= options_.batch) flush();
  }

  Run run_once(const Tensor& images) {
    Run result;
    result.codes = predictor_.encode(images);
    const bool wanted = options_.wants_images() || !options_.grid.empty();
    if (wanted) result.images = predictor_.decode(result.codes, images.shape[1], images.shape[2]);
    return result;
  }

  void flush() {
    if (batch_.items.empty()) return;
    const Batch batch = std::exchange(batch_, {});
    Run whole;
    // More than one part if one file alone holds more.
    for (std::int64_t begin = 0; begin < batch.count(); begin += options_.batch) {
      const Tensor images =
          vqvae::slice(batch.images, begin, std::min<std::int64_t>(begin + options_.batch, batch.count()));
      std::vector<double> seconds;
      Run part = repeat(options_.repeat, &seconds, [&] { return run_once(images); });
      results_.took(static_cast<std::size_t>(images.shape[0]), seconds);
      if (begin == 0) {
        whole = std::move(part);
      } else {
        vqvae::append(&whole.codes, part.codes);
        if (!part.images.data.empty()) vqvae::append(&whole.images, part.images);
      }
      progress_.show(std::to_string(done_ + batch.items.size()) + " of " + std::to_string(sources_.size()) + " files");
    }
    write(batch, whole);
    done_ += batch.items.size();
  }

  void write(const Batch& batch, const Run& whole) {
    std::int64_t at = 0;
    for (const Item& item : batch.items) {
      if (!item.codes.empty()) {
        const Tensor codes = vqvae::slice(whole.codes, at, at + item.count);
        write_new(item.codes, packed(codes, batch.images), &results_);
      }
      for (std::int64_t i = 0; i < item.count; ++i, ++at) write_image(batch, item, i, whole, at);
    }
    if (!one_file_) return;
    if (all_codes_.data.empty()) {
      all_codes_ = whole.codes;
    } else {
      vqvae::append(&all_codes_, whole.codes);
    }
  }

  void write_image(const Batch& batch, const Item& item, std::int64_t number, const Run& whole, std::int64_t at) {
    Result result{item.source.title(), batch.images.shape[1], batch.images.shape[2], {}, item.codes.string(), -1};
    if (!whole.images.data.empty()) {
      Tensor image = vqvae::slice(batch.images, at, at + 1);
      Tensor reconstruction = vqvae::slice(whole.images, at, at + 1);
      if (options_.wants_images()) {
        const fs::path& path = item.outputs[static_cast<std::size_t>(number)];
        write_new(path, vqvae::encode_png(reconstruction, 0), &results_);
        result.output = path.string();
      }
      result.squared_error = squared_error(image, reconstruction);
      if (!options_.grid.empty() && !sheet_.is_full()) sheet_.add(std::move(image), std::move(reconstruction));
    }
    results_.add(result);
  }

  vqvae::Bytes packed(const Tensor& codes, const Tensor& images) const {
    return vqvae::codes_bytes(
        {codes, images.shape[1], images.shape[2], predictor_.num_embeddings(), predictor_.digest()});
  }

  void write_all_codes() {
    const bool array = fs::path(options_.codes).extension() == kArray;
    write_new(options_.codes, array ? vqvae::npy_bytes(all_codes_) : packed(all_codes_, first_), &results_);
  }

  const Options& options_;
  vqvae::Predictor& predictor_;
  Results& results_;
  std::vector<Source> sources_;
  Claims claims_;
  Progress progress_;
  bool one_file_ = false;  // The codes of all images go into one file.
  Tensor first_;           // The first image, where all must have its size.
  Tensor all_codes_;
  Sheet sheet_;
  Batch batch_;
  std::size_t done_ = 0;  // Sources.
};

// The images of one file of codes.
Tensor decode(const Options& options, vqvae::Predictor* predictor, const Source& source, bool array,
              const vqvae::Bytes& bytes) {
  if (array) {
    const Tensor codes = vqvae::parse_npy(bytes, source.title());
    predictor->check_codes(codes, source.title());
    const std::int64_t stride = predictor->stride();
    return predictor->decode(codes, codes.shape[1] * stride, codes.shape[2] * stride);
  }
  const vqvae::Codes codes = vqvae::parse_codes(bytes, source.title());
  const bool same = options.no_verify || codes.bundle == predictor->digest();
  if (!same || codes.num_embeddings != predictor->num_embeddings()) {
    throw vqvae::InputError(source.title(), "are codes of another bundle; decode them with the one that made them");
  }
  return predictor->decode(codes.values, codes.height, codes.width);
}

}  // namespace

void reconstruct_images(const Options& options, vqvae::Predictor* predictor, Results* results) {
  Reconstruction(options, predictor, results).run();
}

void decode_files(const Options& options, vqvae::Predictor* predictor, Results* results) {
  const std::vector<Source> sources = find_sources(options.decode, code_extensions());
  Claims claims(sources);
  Progress progress(options.quiet);
  std::size_t done = 0;
  predictor->set_progress([&](std::size_t part, std::size_t total) {
    progress.show("part " + std::to_string(part) + " of " + std::to_string(total) + ", file " +
                  std::to_string(done + 1) + " of " + std::to_string(sources.size()));
  });
  for (const Source& source : sources) {
    const vqvae::Bytes bytes = read_source(source);
    const bool array = is_array(source, bytes);
    std::vector<double> seconds;
    const Run run =
        repeat(options.repeat, &seconds, [&] { return Run{{}, decode(options, predictor, source, array, bytes)}; });
    const std::int64_t count = run.images.shape[0];
    results->took(static_cast<std::size_t>(count), seconds);
    const auto paths = output_paths(fs::path(options.directory()) / source.place, count, array || count > 1);
    for (const fs::path& path : paths) claims.claim(path, "images", source.title());
    for (std::int64_t i = 0; i < count; ++i) {
      const fs::path& path = paths[static_cast<std::size_t>(i)];
      write_new(path, vqvae::encode_png(run.images, i), results);
      results->add({source.title(), run.images.shape[1], run.images.shape[2], path.string(), {}, -1});
    }
    progress.show(std::to_string(++done) + " of " + std::to_string(sources.size()) + " files");
  }
  predictor->set_progress(nullptr);
}

void trace_images(const Options& options, vqvae::Predictor* predictor, Results* results) {
  const std::vector<Source> sources = find_sources(options.images, image_extensions());
  Claims claims(sources);
  Tensor all;
  std::vector<fs::path> outputs;
  for (const Source& source : sources) {
    const Images images = read_images(source, predictor->channels());
    predictor->check_images(images.values, source.title());
    for (const fs::path& path :
         output_paths(fs::path(options.directory()) / source.place, images.values.shape[0], images.numbered)) {
      claims.claim(path, "reconstruction", source.title());
      outputs.push_back(path);
    }
    if (all.data.empty()) {
      all = images.values;
    } else if (same_size(all, images.values)) {
      vqvae::append(&all, images.values);
    } else {
      throw vqvae::InputError(source.title(), "is not of the size of the images before it; a trace is of one batch");
    }
  }
  // A trace is of one run, however large the images are that were asked for.
  constexpr std::size_t kBytesOfPixel = 8192;
  if (options.memory == 0) vqvae::bound_runs(options.memory_limit() + kBytesOfPixel * all.data.size());
  vqvae::make_directory(options.directory());
  vqvae::TraceWriter trace(options.trace, options.runtime());
  const Tensor images = predictor->reconstruct(all, &trace, options.wants_taps());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    write_new(outputs[i], vqvae::encode_png(images, static_cast<std::int64_t>(i)), results);
  }
  trace.close();
}
