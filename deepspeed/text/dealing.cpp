// How the sequences of a global batch are dealt to its micro batches.
#include "deepspeed/text/dealing.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace deepspeed::text {
namespace {

struct MicroBatch {
  std::vector<uint64_t> sequences;
  uint64_t tokens = 0;
  uint64_t room = 0; // for more sequences
};

} // namespace

// Greedy, the longest first ("longest processing time": Graham, "Bounds on
// multiprocessing timing anomalies", 1969). A micro batch that fills up early
// cannot take short ones at the end, so a sequence goes not to the one with the
// fewest tokens now, but to the one that will have the fewest if all free
// places get sequences of the mean length of those left.
std::vector<uint64_t> deal_balanced(
    std::span<const uint32_t> lengths,
    uint64_t micro_batches) {
  if (micro_batches == 0 || lengths.size() % micro_batches != 0) {
    throw std::invalid_argument("deal_balanced: micro batches of equal counts");
  }
  std::vector<uint64_t> longest_first(lengths.size());
  std::iota(longest_first.begin(), longest_first.end(), 0);
  std::stable_sort(
      longest_first.begin(), longest_first.end(), [&](uint64_t a, uint64_t b) {
        return lengths[a] > lengths[b];
      });
  std::vector<MicroBatch> dealt(micro_batches);
  for (MicroBatch& batch : dealt) {
    batch.room = lengths.size() / micro_batches;
  }
  uint64_t sequences = lengths.size(); // that are left
  uint64_t tokens =
      std::accumulate(lengths.begin(), lengths.end(), uint64_t{0});
  for (const uint64_t sequence : longest_first) {
    const auto expected = [&](const MicroBatch& batch) { // x sequences
      return batch.tokens * sequences + batch.room * tokens;
    };
    MicroBatch* least = nullptr;
    for (MicroBatch& batch : dealt) {
      if (batch.room > 0 &&
          (least == nullptr || expected(batch) < expected(*least))) {
        least = &batch;
      }
    }
    least->sequences.push_back(sequence);
    least->tokens += lengths[sequence];
    --least->room;
    tokens -= lengths[sequence];
    --sequences;
  }
  for (MicroBatch& batch : dealt) {
    std::sort(batch.sequences.begin(), batch.sequences.end());
  }
  // Else the longest sequence would always be the first rank's.
  std::sort(
      dealt.begin(), dealt.end(), [](const MicroBatch& a, const MicroBatch& b) {
        return a.sequences < b.sequences;
      });
  std::vector<uint64_t> order;
  order.reserve(lengths.size());
  for (const MicroBatch& batch : dealt) {
    order.insert(order.end(), batch.sequences.begin(), batch.sequences.end());
  }
  return order;
}

} // namespace deepspeed::text
