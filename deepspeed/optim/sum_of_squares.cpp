// Sums of squares in blocks.
#include "deepspeed/optim/sum_of_squares.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/adam.h"

namespace deepspeed::optim {

double sum_of_squares(const float* x, int64_t n) {
  const int64_t blocks = (n + kernels::kSumBlock - 1) / kernels::kSumBlock;
  std::vector<double> sums(blocks);
  flat::for_ranges(0, blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kernels::kSumBlock;
      sums[block] = kernels::sum_of_squares(
          x + first, std::min(kernels::kSumBlock, n - first));
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

} // namespace deepspeed::optim
