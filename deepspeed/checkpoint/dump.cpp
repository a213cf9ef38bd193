// A tree as JSON, for tests and for looking into files.
#include "deepspeed/checkpoint/dump.h"

#include <zlib.h>

namespace deepspeed::checkpoint {
namespace {

using base::Json;

Json dump_items(const List& list) {
  Json items = Json::array();
  for (const Value& item : list) {
    items.push_back(dump(item));
  }
  return items;
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
    Json entries = Json::array();
    for (const DictEntry& entry : dict.entries) {
      entries.push_back(Json::array({dump(entry.key), dump(entry.value)}));
    }
    Json json{
        {"kind", dict.ordered ? "ordered_dict" : "dict"}, {"entries", entries}};
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
    return {
        {"kind", "object"},
        {"name", object->name},
        {"call", static_cast<int>(object->call)},
        {"arguments", dump_items(object->arguments)},
        {"state", dump(object->state)}};
  }
};

} // namespace

Json dump(const Value& value) {
  return std::visit(Dump{}, value.data());
}

} // namespace deepspeed::checkpoint
