// What arguments bring: the rules of vqvae_gluon/data/images.py.
#ifndef VQVAE_TOOLS_SOURCES_HPP_
#define VQVAE_TOOLS_SOURCES_HPP_

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "vqvae/tensor.hpp"

// A file, standard input, or one file of a directory that was given.
struct Source {
  std::string name;             // "-" for standard input.
  std::filesystem::path place;  // Its name below the directory for results, without an extension.

  bool is_standard_input() const { return name == "-"; }
  std::string title() const { return is_standard_input() ? "standard input" : name; }  // In messages.
};

// Files, standard input, and of each directory all files below it that have one of the extensions, sorted. Throws
// InputError if a directory holds none.
std::vector<Source> find_sources(const std::vector<std::string>& arguments, const std::set<std::string>& extensions);
const std::set<std::string>& image_extensions();
const std::set<std::string>& code_extensions();

// The bytes of a file or of standard input. Throws InputError.
vqvae::Bytes read_source(const Source& source);

// Whether these are the bytes of an .npy file: by the extension, of standard input by the bytes.
bool is_array(const Source& source, const vqvae::Bytes& bytes);

// Images uint8 (N, H, W, C). Throws InputError.
struct Images {
  vqvae::Tensor values;
  bool numbered = false;  // Of an .npy file, whose results are numbered.
};
Images read_images(const Source& source, std::int64_t channels);

// Where results go: <stem>.png, or <stem>-<number>.png for each image of a batch.
std::vector<std::filesystem::path> output_paths(const std::filesystem::path& stem, std::int64_t count, bool numbered);

// Sees to it that nothing that was given or written is overwritten.
class Claims {
 public:
  explicit Claims(const std::vector<Source>& sources);
  // Throws UsageError.
  void claim(const std::filesystem::path& path, const std::string& result, const std::string& source);

 private:
  std::set<std::filesystem::path> taken_;
};

#endif  // VQVAE_TOOLS_SOURCES_HPP_
