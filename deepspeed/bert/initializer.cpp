// Initial weights from the counter-based generator.
#include "deepspeed/bert/initializer.h"
#include "deepspeed/flat/parallel.h"

#include <cmath>
#include <numbers>

#include "deepspeed/base/philox.h"

namespace deepspeed::bert {

void fill_normal(
    at::Tensor& tensor,
    double deviation,
    uint64_t seed,
    uint32_t stream) {
  const base::PhiloxKey key =
      base::philox_key(seed, base::Purpose::init, stream);
  float* const out = tensor.data_ptr<float>();
  const int64_t n = tensor.numel();
  const int64_t blocks = (n + 3) / 4;
  flat::for_ranges(0, blocks, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto words = base::philox(
          {static_cast<uint32_t>(block),
           static_cast<uint32_t>(block >> 32),
           0,
           0},
          key);
      for (int pair = 0; pair < 2; ++pair) {
        // Uniform in (0, 1]: the logarithm is finite.
        const float u =
            (static_cast<float>(words[2 * pair] >> 8) + 1.0f) * 0x1p-24f;
        const float angle = static_cast<float>(words[2 * pair + 1] >> 8) *
            0x1p-24f * 2.0f * std::numbers::pi_v<float>;
        const float radius =
            static_cast<float>(deviation) * std::sqrt(-2.0f * std::log(u));
        const int64_t i = 4 * block + 2 * pair;
        if (i < n) {
          out[i] = radius * std::cos(angle);
        }
        if (i + 1 < n) {
          out[i + 1] = radius * std::sin(angle);
        }
      }
    }
  });
}

} // namespace deepspeed::bert
