// Batches on disk, so that other programs train on exactly the same ones.
#include "deepspeed/text/batch_file.h"

#include <string_view>
#include <vector>

namespace deepspeed::text {
namespace {

template <typename T>
void append_list(
    std::string& line,
    std::string_view name,
    const std::vector<T>& values) {
  line += line.empty() ? "{\"" : ", \"";
  line += name;
  line += "\": [";
  for (size_t i = 0; i < values.size(); ++i) {
    line += i > 0 ? ", " : "";
    line += std::to_string(values[i]);
  }
  line += "]";
}

} // namespace

std::string batch_to_json(const PackedBatch& batch) {
  std::string line;
  append_list(line, "ids", batch.ids);
  append_list(line, "positions", batch.positions);
  append_list(line, "cu_seqlens", batch.cu_seqlens);
  append_list(line, "masked", batch.masked);
  append_list(line, "labels", batch.labels);
  append_list(line, "visits", batch.visits);
  return line + "}";
}

} // namespace deepspeed::text
