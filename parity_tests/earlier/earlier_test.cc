// What the earlier project's C++ test did before and after the forward pass, as it did it:
//
//   earlier_test read    gray images from standard input, 784 bytes each; what it fed the network to standard output
//   earlier_test draw    latents from standard input, 16x7x7 float32 each; its pictures, 7x112 gray, to standard output

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

constexpr int kSide = 28;
constexpr int kPixels = kSide * kSide;
constexpr int kChannels = 16;
constexpr int kLatentSide = 7;
constexpr int kLatent = kChannels * kLatentSide * kLatentSide;
constexpr int kBytesOfPixel = 3;              // It took the gray picture for one of three channels.
constexpr unsigned char kBehindBuffer = 205;  // Its memory behind the picture held whatever it held.

// The pixel (j, k) was looked for at 28j + 3k. The last of them lie behind the picture, so there is room behind it.
void read(const std::string& input, std::vector<float>* output) {
  for (std::size_t begin = 0; begin + kPixels <= input.size(); begin += kPixels) {
    std::vector<unsigned char> picture(kPixels + kBytesOfPixel * kSide, kBehindBuffer);
    std::memcpy(picture.data(), input.data() + begin, kPixels);
    for (int j = 0; j < kSide; ++j) {
      for (int k = 0; k < kSide; ++k) {
        output->push_back(static_cast<float>(picture[kSide * j + kBytesOfPixel * k]) / 255.0F);
      }
    }
  }
}

// Every channel beside the last one; the values e in -1..1 were drawn as (2 - e) * 125.5, which saturates.
void draw(const std::string& input, std::vector<unsigned char>* output) {
  std::vector<float> latent(kLatent);
  for (std::size_t begin = 0; begin + kLatent * sizeof(float) <= input.size(); begin += kLatent * sizeof(float)) {
    std::memcpy(latent.data(), input.data() + begin, kLatent * sizeof(float));
    for (int j = 0; j < kLatentSide; ++j) {
      for (int channel = 0; channel < kChannels; ++channel) {
        for (int k = 0; k < kLatentSide; ++k) {
          const float e = latent[(channel * kLatentSide + j) * kLatentSide + k];
          const float gray = std::round((2.0F - e) * 125.5F);
          output->push_back(static_cast<unsigned char>(std::clamp(gray, 0.0F, 255.0F)));
        }
      }
    }
  }
}

template <typename Value>
bool write(const std::vector<Value>& values) {
  const auto* bytes = reinterpret_cast<const char*>(values.data());
  return static_cast<bool>(std::cout.write(bytes, static_cast<std::streamsize>(values.size() * sizeof(Value))).flush());
}

}  // namespace

int main(int count, char** arguments) {
  const std::string command = count == 2 ? arguments[1] : "";
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  if (command == "read") {
    std::vector<float> values;
    read(input, &values);
    return write(values) ? 0 : 1;
  }
  if (command == "draw") {
    std::vector<unsigned char> values;
    draw(input, &values);
    return write(values) ? 0 : 1;
  }
  std::cerr << "usage: earlier_test read|draw <INPUT >OUTPUT\n";
  return 2;
}
