// Who uses rows of a gradient as soon as they are made.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace deepspeed::flat {

// Takes the gradient of a large matrix a few rows at a time, while they are in
// the cache, in place of the gradient buffer: an optimizer that updates these
// rows at once. In one backward pass: begin(), then take() for each row once.
class RowConsumer {
 public:
  virtual ~RowConsumer() = default;

  // `kept`: rows that later writers add to, ascending. take() puts their
  // gradient into the buffer.
  virtual void begin(std::vector<int64_t> kept) = 0;
  // Rows [begin, end); `gradient`: [end - begin, columns], dense. From any
  // thread.
  virtual void take(int64_t begin, int64_t end, const float* gradient) = 0;
  // What take() will read beside the gradient: for each row as many bytes of
  // each array as the row has in fp32.
  virtual std::array<const float*, 3> reads(int64_t begin) const = 0;
};

} // namespace deepspeed::flat
