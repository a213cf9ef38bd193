// libFuzzer target: torch files (zip and pickle) from memory.
#include <cstdint>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/dump.h"
#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/torch_file.h"

namespace {

using namespace deepspeed;
using namespace deepspeed;

// Elements that a tree of a few bytes may show through strides of 0: gathering
// them is the caller's choice, so the fuzzer does not.
bool is_small(const formats::Value& value) {
  if (const formats::Tensor* tensor = value.tensor()) {
    return tensor->byte_size() < 1 << 16;
  }
  const formats::List* items = value.get_if<formats::List>();
  if (const formats::Tuple* tuple = value.get_if<formats::Tuple>()) {
    items = &tuple->items;
  }
  if (const formats::Object* object = value.object()) {
    items = &object->arguments;
    formats::Value contents(object->items);
    if (!is_small(object->state) || !is_small(contents) ||
        !is_small(formats::Dict{object->entries})) {
      return false;
    }
  }
  if (items != nullptr) {
    for (const formats::Value& item : *items) {
      if (!is_small(item)) {
        return false;
      }
    }
  }
  if (const formats::Dict* dict = value.get_if<formats::Dict>()) {
    for (const formats::DictEntry& entry : dict->entries) {
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
void check(const formats::Value& read) {
  if (!is_small(read)) {
    return;
  }
  formats::dump(read);
  std::vector<std::string> dropped;
  const formats::Value value = formats::without_unknown(read, &dropped);
  const std::string shown = formats::dump(value).dump();
  const formats::Pickle pickle = formats::write_pickle(value);
  const formats::Value again = formats::read_pickle(
      std::as_bytes(std::span(pickle.bytes.data(), pickle.bytes.size())),
      [&](const std::string& key) {
        return pickle.storages.at(std::stoul(key));
      },
      "again");
  if (formats::dump(again).dump() != shown) {
    std::abort();
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  // Checksums would hide everything behind them.
  formats::TorchFileOptions options;
  options.verify_checksums = false;
  try {
    check(formats::parse_torch_file(bytes, nullptr, "fuzz", options));
  } catch (const base::Error&) {
  }
  // The same bytes as a bare pickle, with 64 bytes behind each key.
  static const std::byte storage[64] = {};
  try {
    check(formats::read_pickle(
        bytes,
        [](const std::string&) {
          return std::make_shared<const formats::Storage>(
              formats::Storage{storage, nullptr});
        },
        "fuzz"));
  } catch (const base::Error&) {
  }
  return 0;
}
