// A tree as JSON, for tests and for looking into files.
#include "deepspeed/formats/dump.h"

#include <zlib.h>

namespace deepspeed::formats {
namespace {

using base::Json;

Json dump_items(const List& list) {
  Json items = Json::array();
  for (const Value& item : list) {
    items.push_back(dump(item));
  }
  return items;
}

Json dump_entries(const std::vector<DictEntry>& entries) {
  Json json = Json::array();
  for (const DictEntry& entry : entries) {
    json.push_back(Json::array({dump(entry.key), dump(entry.value)}));
  }
  return json;
}

struct Dump {
  Json operator()(std::monostate) const {
    return nullptr;
  }
  Json operator()(bool value) const {
    return value;
  }
  Json operator()(int64_t value) const {
    return value;
  }
  Json operator()(const BigInteger& integer) const {
    std::string digits;
    for (const unsigned char byte : integer.bytes) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      digits += kDigits[byte >> 4];
      digits += kDigits[byte & 15];
    }
    return {{"kind", "integer"}, {"bytes", digits}};
  }
  Json operator()(double value) const {
    return value;
  }
  Json operator()(const std::string& text) const {
    return text;
  }
  Json operator()(const List& list) const {
    return {{"kind", "list"}, {"items", dump_items(list)}};
  }
  Json operator()(const Tuple& tuple) const {
    return {{"kind", "tuple"}, {"items", dump_items(tuple.items)}};
  }
  Json operator()(const Dict& dict) const {
    Json json{
        {"kind", dict.ordered ? "ordered_dict" : "dict"},
        {"entries", dump_entries(dict.entries)}};
    if (dict.attributes != nullptr) {
      json["attributes"] = dump(*dict.attributes);
    }
    return json;
  }
  Json operator()(const std::shared_ptr<const Tensor>& tensor) const {
    std::vector<std::byte> bytes(tensor->byte_size());
    tensor->copy_to(bytes.data());
    return {
        {"kind", "tensor"},
        {"dtype", dtype_name(tensor->dtype)},
        {"sizes", tensor->sizes},
        {"strides", tensor->strides},
        {"offset", tensor->storage_offset},
        {"storage_bytes", tensor->storage->bytes.size()},
        {"requires_grad", tensor->requires_grad},
        {"parameter", tensor->is_parameter},
        {"crc",
         crc32_z(
             0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size())}};
  }
  Json operator()(const std::shared_ptr<const Object>& object) const {
    Json json{
        {"kind", "object"},
        {"name", object->name},
        {"call", static_cast<int>(object->call)},
        {"arguments", dump_items(object->arguments)},
        {"state", dump(object->state)}};
    if (!object->items.empty()) {
      json["items"] = dump_items(object->items);
    }
    if (!object->entries.empty()) {
      json["entries"] = dump_entries(object->entries);
    }
    return json;
  }
};

} // namespace

Json dump(const Value& value) {
  return std::visit(Dump{}, value.data());
}

} // namespace deepspeed::formats
