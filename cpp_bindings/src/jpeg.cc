// JPEG files: the steps of vqvae_gluon/data/jpeg.py. Whatever libjpeg-turbo warns of is an error; its words differ
// between versions, so they are not told.

#include <turbojpeg.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "pixels.hpp"

namespace vqvae {
namespace {

constexpr int kMaxScans = 100;                // What the library's own programs write at most.
constexpr std::int64_t kLargestSide = 65500;  // The library's own.
constexpr std::array<std::uint8_t, 6> kExif = {'E', 'x', 'i', 'f', 0, 0};
constexpr std::uint8_t kEoi = 0xD9;
constexpr std::uint8_t kSos = 0xDA;
constexpr std::uint8_t kApp1 = 0xE1;

// A file's segments, checked.
struct Segments {
  std::int64_t width = 0;
  std::int64_t height = 0;
  int components = 0;
  int turned = 1;

  Segments(const Bytes& bytes, const std::string& name) : bytes_(bytes), name_(name) {
    int scans = 0;
    bool has_exif = false;
    for (std::size_t at = 2;;) {
      while (at + 1 < bytes.size() && bytes[at] == 0xFF && bytes[at + 1] == 0xFF) ++at;
      if (bytes.size() - at < 2) reject("it ends early");
      const std::uint8_t marker = bytes[at + 1];
      if (bytes[at] != 0xFF || marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
        reject("there is something between its segments");
      }
      if (marker == kEoi) break;
      const std::size_t size = bytes.size() - at >= 4 ? number(at + 2) : 0;
      if (size < 2 || size > bytes.size() - at - 2) reject("it ends early");
      const std::size_t body = at + 4;
      at += 2 + size;
      if (marker >= 0xC0 && marker <= 0xC2) {  // Baseline, extended, progressive: those with Huffman's codes.
        if (components != 0) reject("it has two frames");
        read_frame(body, size - 2);
      } else if (marker >= 0xC3 && marker <= 0xCF && marker != 0xC4 && marker != 0xCC) {
        reject("it is of a process other than baseline, extended or progressive");
      } else if (marker == kApp1 && scans == 0 && !has_exif && size - 2 >= kExif.size() &&
                 std::equal(kExif.begin(), kExif.end(), &bytes[body])) {
        has_exif = true;
        turned = exif_orientation(bytes.data() + body + kExif.size(), size - 2 - kExif.size());
      } else if (marker == kSos) {
        ++scans;
        if (components == 0) reject("it has no frame");
        if (scans > kMaxScans) reject("it has more than 100 scans");
        read_scan(body, size - 2);
        at = after_scan(at);
      }
    }
    if (scans == 0) reject("it has no pixels");
    // Each version of the library guesses the rest in its own way.
    for (std::size_t i = 0; i < static_cast<std::size_t>(components); ++i) {
      if (left_.at(i) != Coefficients{}) reject("its scans leave a part out");
    }
  }

 private:
  [[noreturn]] void reject(const char* why) const { throw unreadable(name_, why); }

  std::size_t number(std::size_t at) const { return std::size_t{bytes_[at]} << 8U | bytes_[at + 1]; }

  // The next marker that does not belong to a scan.
  std::size_t after_scan(std::size_t at) const {
    for (;; ++at) {
      const void* found = at < bytes_.size() ? std::memchr(&bytes_[at], 0xFF, bytes_.size() - at) : nullptr;
      if (found == nullptr) reject("it ends early");
      at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - bytes_.data());
      if (at + 1 == bytes_.size()) reject("it ends early");
      const std::uint8_t marker = bytes_[at + 1];
      if (marker != 0 && (marker < 0xD0 || marker > 0xD7)) return at;
    }
  }

  void read_frame(std::size_t at, std::size_t size) {
    if (size < 6 || size != 6 + std::size_t{3} * bytes_[at + 5]) reject("its frame is not sound");
    height = static_cast<std::int64_t>(number(at + 1));
    width = static_cast<std::int64_t>(number(at + 3));
    components = bytes_[at + 5];
    if (components == 4) reject("its pixels are CMYK; save it with 8 bits a channel, gray or RGB");
    if (bytes_[at] != 8 || (components != 1 && components != 3)) reject("its pixels are not 8 bits of gray or RGB");
    if (height == 0 || width == 0) reject("its frame is not sound");
    const bool fits = std::max(width, height) <= kLargestSide;
    if (!fits || static_cast<std::uint64_t>(width * height) > kMaxPixels) reject("it has too many pixels");
    if (components == 3 && !is_common(bytes_[at + 7], bytes_[at + 10], bytes_[at + 13])) {
      reject("its colours are sampled in an uncommon way");
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(components); ++i) {
      names_.at(i) = bytes_[at + 6 + 3 * i];
      left_.at(i).fill(1);
      if (std::find(names_.begin(), names_.begin() + i, names_[i]) != names_.begin() + i) {
        reject("its frame is not sound");
      }
    }
  }

  void read_scan(std::size_t at, std::size_t size) {
    if (size < 1 || size != 4 + std::size_t{2} * bytes_[at]) reject("a scan of it is not sound");
    const std::uint8_t* last = &bytes_[at + size - 2];
    const std::uint8_t first = last[-1];
    if (first > *last || *last > 63) reject("a scan of it is not sound");
    for (const std::uint8_t* name = &bytes_[at + 1]; name != last - 1; name += 2) {
      const auto* const found = std::find(names_.begin(), names_.begin() + components, *name);
      if (found == names_.begin() + components) reject("a scan of it is not sound");
      Coefficients& left = left_.at(static_cast<std::size_t>(found - names_.begin()));
      std::fill(left.begin() + first, left.begin() + *last + 1, last[1] & 15U);
    }
  }

  // Those that TurboJPEG knows, in every version: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1, also in other words. The digits
  // are the factors across and down.
  static bool is_common(std::uint8_t luma, std::uint8_t blue, std::uint8_t red) {
    const auto one_of = [luma](std::initializer_list<int> all) {
      return std::find(all.begin(), all.end(), luma) != all.end();
    };
    if (blue != red) return false;
    if (blue == 0x11 && one_of({0x11, 0x21, 0x12, 0x22, 0x41})) return true;
    return (luma == 0x22 && (blue == 0x12 || blue == 0x21)) || (luma == blue && one_of({0x21, 0x12, 0x31, 0x13}));
  }

  using Coefficients = std::array<std::uint8_t, 64>;

  const Bytes& bytes_;
  const std::string& name_;
  std::array<std::uint8_t, 3> names_{};  // Of the components.
  std::array<Coefficients, 3> left_{};   // Of their coefficients the bits that are yet to come.
};

}  // namespace

Picture read_jpeg(const Bytes& bytes, const std::string& name) {
  const Segments segments(bytes, name);
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  if (!decoder) throw RuntimeFailure(name, "libjpeg-turbo could not start");
  int width = 0;
  int height = 0;
  int subsampling = 0;
  int colorspace = 0;
  const auto size = static_cast<unsigned long>(bytes.size());  // NOLINT(google-runtime-int): TurboJPEG's type.
  if (tjDecompressHeader3(decoder.get(), bytes.data(), size, &width, &height, &subsampling, &colorspace) != 0) {
    throw unreadable(name, "its pixels are damaged");
  }
  if (width != segments.width || height != segments.height) throw unreadable(name, "its frame is not sound");
  const bool gray = segments.components == 1;
  Picture picture;
  picture.turned = segments.turned;
  picture.pixels = Tensor(DType::kUint8, {1, segments.height, segments.width, gray ? 1 : 3});
  if (tjDecompress2(decoder.get(), bytes.data(), size, picture.pixels.data.data(), width, 0, height,
                    gray ? TJPF_GRAY : TJPF_RGB, TJFLAG_ACCURATEDCT) != 0) {
    throw unreadable(name, "its pixels are damaged");
  }
  return picture;
}

}  // namespace vqvae
