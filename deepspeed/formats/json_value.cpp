// Between JSON and the values of torch files.
#include "deepspeed/formats/json_value.h"

#include <limits>
#include <optional>
#include <stdexcept>

namespace deepspeed::formats {
namespace {

using base::Json;

Json array_of(const List& items) {
  Json json = Json::array();
  for (const Value& item : items) {
    json.push_back(json_of_value(item));
  }
  return json;
}

Json object_of(const Dict& dict) {
  Json json = Json::object();
  for (const DictEntry& entry : dict.entries) {
    std::string key;
    if (const auto* text = entry.key.get_if<std::string>()) {
      key = *text;
    } else if (const auto* number = entry.key.get_if<int64_t>()) {
      key = std::to_string(*number);
    } else {
      throw std::invalid_argument(
          describe(entry.key) + " is no key of a JSON object");
    }
    json[key] = json_of_value(entry.value);
  }
  return json;
}

Value value_of_unsigned(uint64_t number) {
  if (number <= std::numeric_limits<int64_t>::max()) {
    return static_cast<int64_t>(number);
  }
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(number >> (8 * i));
  }
  bytes += '\0'; // the sign
  return Value(BigInteger{std::move(bytes)});
}

// Nothing if it is negative or larger than that.
std::optional<uint64_t> unsigned_of(const BigInteger& integer) {
  if (integer.bytes.size() != 9 || integer.bytes[8] != '\0') {
    return std::nullopt;
  }
  uint64_t number = 0;
  for (int i = 0; i < 8; ++i) {
    const auto byte = static_cast<unsigned char>(integer.bytes[i]);
    number |= static_cast<uint64_t>(byte) << (8 * i);
  }
  return number;
}

} // namespace

Value value_of_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned:
      return value_of_unsigned(json.get<uint64_t>());
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::array: {
      List items;
      for (const Json& item : json) {
        items.push_back(value_of_json(item));
      }
      return items;
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, value] : json.items()) {
        dict.entries.push_back({key, value_of_json(value)});
      }
      return dict;
    }
    default:
      return {};
  }
}

Json json_of_value(const Value& value) {
  if (const bool* flag = value.get_if<bool>()) {
    return *flag;
  }
  if (const int64_t* number = value.get_if<int64_t>()) {
    return *number;
  }
  if (const BigInteger* integer = value.get_if<BigInteger>()) {
    if (const auto number = unsigned_of(*integer)) {
      return *number;
    }
  }
  if (const double* number = value.get_if<double>()) {
    return *number;
  }
  if (const std::string* text = value.get_if<std::string>()) {
    return *text;
  }
  if (const List* list = value.get_if<List>()) {
    return array_of(*list);
  }
  if (const Tuple* tuple = value.get_if<Tuple>()) {
    return array_of(tuple->items);
  }
  if (const Dict* dict = value.get_if<Dict>()) {
    return object_of(*dict);
  }
  if (!value.is_none()) {
    throw std::invalid_argument(describe(value) + " has no form in JSON");
  }
  return nullptr;
}

} // namespace deepspeed::formats
