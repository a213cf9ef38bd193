// libFuzzer target: torch files (zip and pickle) from memory.
#include <cstdint>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/checkpoint/dump.h"
#include "deepspeed/checkpoint/pickle.h"
#include "deepspeed/checkpoint/torch_file.h"

namespace {

using namespace deepspeed;
using namespace deepspeed::checkpoint;

// Elements that a tree of a few bytes may show through strides of 0: gathering
// them is the caller's choice, so the fuzzer does not.
bool is_small(const Value& value) {
  if (const Tensor* tensor = value.tensor()) {
    return tensor->byte_size() < 1 << 16;
  }
  const List* items = value.get_if<List>();
  if (const Tuple* tuple = value.get_if<Tuple>()) {
    items = &tuple->items;
  }
  if (const Object* object = value.object()) {
    items = &object->arguments;
    Value contents(object->items);
    if (!is_small(object->state) || !is_small(contents) ||
        !is_small(Dict{object->entries})) {
      return false;
    }
  }
  if (items != nullptr) {
    for (const Value& item : *items) {
      if (!is_small(item)) {
        return false;
      }
    }
  }
  if (const Dict* dict = value.get_if<Dict>()) {
    for (const DictEntry& entry : dict->entries) {
      if (!is_small(entry.key) || !is_small(entry.value)) {
        return false;
      }
    }
    return dict->attributes == nullptr || is_small(*dict->attributes);
  }
  return true;
}

// What was read can be shown, and what has a known class comes back the same
// when written and read.
void check(const Value& read) {
  if (!is_small(read)) {
    return;
  }
  dump(read);
  std::vector<std::string> dropped;
  const Value value = without_unknown(read, &dropped);
  const std::string shown = dump(value).dump();
  const Pickle pickle = write_pickle(value);
  const Value again = read_pickle(
      std::as_bytes(std::span(pickle.bytes.data(), pickle.bytes.size())),
      [&](const std::string& key) {
        return pickle.storages.at(std::stoul(key));
      },
      "again");
  if (dump(again).dump() != shown) {
    std::abort();
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  // Checksums would hide everything behind them.
  TorchFileOptions options;
  options.verify_checksums = false;
  try {
    check(parse_torch_file(bytes, nullptr, "fuzz", options));
  } catch (const base::Error&) {
  }
  // The same bytes as a bare pickle, with 64 bytes behind each key.
  static const std::byte storage[64] = {};
  try {
    check(read_pickle(
        bytes,
        [](const std::string&) {
          return std::make_shared<const Storage>(Storage{storage, nullptr});
        },
        "fuzz"));
  } catch (const base::Error&) {
  }
  return 0;
}
