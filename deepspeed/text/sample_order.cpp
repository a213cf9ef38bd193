// Which sample comes when: a pure function of the seed.
#include "deepspeed/text/sample_order.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace deepspeed::text {
namespace {

constexpr uint64_t kMaxSamples = uint64_t{1} << 48;
// Found by the tests of uniformity: 8 are too few for a handful of samples.
constexpr uint32_t kRounds = 16;

uint64_t square_root_up(uint64_t n) {
  auto root = static_cast<uint64_t>(std::sqrt(static_cast<double>(n)));
  while (root * root < n) {
    ++root;
  }
  return root;
}

} // namespace

SampleOrder::SampleOrder(uint64_t samples, uint64_t seed)
    : samples_(samples), key_(base::philox_key(seed, base::Purpose::order)) {
  if (samples == 0 || samples > kMaxSamples) {
    throw std::invalid_argument("SampleOrder: number of samples out of range");
  }
  // With one row or column the network could only rotate.
  rows_ = std::max<uint64_t>(square_root_up(samples), 2);
  columns_ = std::max<uint64_t>((samples + rows_ - 1) / rows_, 2);
}

// Each round adds a random function of one coordinate to the other one: a
// bijection, whatever the function is.
uint64_t SampleOrder::permute_once(uint64_t value, uint64_t epoch) const {
  uint64_t row = value / columns_;
  uint64_t column = value % columns_;
  const auto epoch_low = static_cast<uint32_t>(epoch);
  const auto epoch_high = static_cast<uint32_t>(epoch >> 32);
  for (uint32_t round = 0; round < kRounds; round += 2) {
    const auto of_column = base::philox(
        {static_cast<uint32_t>(column), round, epoch_low, epoch_high}, key_);
    row = (row + ((of_column[0] * rows_) >> 32)) % rows_;
    const auto of_row = base::philox(
        {static_cast<uint32_t>(row), round + 1, epoch_low, epoch_high}, key_);
    column = (column + ((of_row[0] * columns_) >> 32)) % columns_;
  }
  return row * columns_ + column;
}

Visit SampleOrder::at(uint64_t stream_position) const {
  const uint64_t epoch = stream_position / samples_;
  uint64_t value = stream_position % samples_;
  // The network permutes a few values too many: walk on until one is a sample.
  do {
    value = permute_once(value, epoch);
  } while (value >= samples_);
  return {epoch, value};
}

} // namespace deepspeed::text
