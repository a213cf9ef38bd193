// The tree of plain values that a torch file holds.
#include "deepspeed/formats/value.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <type_traits>

namespace deepspeed::formats {
namespace {

// Text of at most 60 characters for a message, without control characters.
std::string quoted(const std::string& text) {
  constexpr size_t kShown = 60;
  std::string shown = "'";
  for (const char c : text.substr(0, kShown)) {
    shown += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  }
  return shown + (text.size() > kShown ? "...'" : "'");
}

std::string counted(const char* what, size_t n) {
  return std::string(what) + " of " + std::to_string(n) +
      (n == 1 ? " item" : " items");
}

struct Describe {
  std::string operator()(std::monostate) const {
    return "None";
  }
  std::string operator()(bool value) const {
    return value ? "True" : "False";
  }
  std::string operator()(int64_t value) const {
    return "the integer " + std::to_string(value);
  }
  std::string operator()(const BigInteger& value) const {
    return "an integer of " + std::to_string(value.bytes.size()) + " bytes";
  }
  std::string operator()(double value) const {
    return "the number " + std::to_string(value);
  }
  std::string operator()(const std::string& text) const {
    return "the string " + quoted(text);
  }
  std::string operator()(const List& list) const {
    return counted("a list", list.size());
  }
  std::string operator()(const Tuple& tuple) const {
    return counted("a tuple", tuple.items.size());
  }
  std::string operator()(const Dict& dict) const {
    return counted("a dict", dict.entries.size());
  }
  std::string operator()(const std::shared_ptr<const Tensor>& tensor) const {
    return "a tensor " + describe(*tensor);
  }
  std::string operator()(const std::shared_ptr<const Object>& object) const {
    return "an object " + object->name;
  }
};

template <typename Key>
const Value* find_key(const Value& value, const Key& key) {
  const Dict* dict = value.get_if<Dict>();
  if (dict == nullptr) {
    return nullptr;
  }
  for (const DictEntry& entry : dict->entries) {
    const auto* found = entry.key.get_if<std::conditional_t<
        std::is_same_v<Key, std::string_view>,
        std::string,
        int64_t>>();
    if (found != nullptr && *found == key) {
      return &entry.value;
    }
  }
  return nullptr;
}

template <typename Visit>
void for_each_child(const Value& value, const Visit& visit) {
  const auto all = [&](const List& items) {
    std::for_each(items.begin(), items.end(), visit);
  };
  const auto pairs = [&](const std::vector<DictEntry>& entries) {
    for (const DictEntry& entry : entries) {
      visit(entry.key);
      visit(entry.value);
    }
  };
  if (const List* list = value.get_if<List>()) {
    all(*list);
  } else if (const Tuple* tuple = value.get_if<Tuple>()) {
    all(tuple->items);
  } else if (const Dict* dict = value.get_if<Dict>()) {
    pairs(dict->entries);
    if (dict->attributes != nullptr) {
      visit(*dict->attributes);
    }
  } else if (const Object* object = value.object()) {
    all(object->arguments);
    visit(object->state);
    all(object->items);
    pairs(object->entries);
  }
}

// Equal for equal contents, of any value. Each part stands in it once.
std::string content_text(const Value& value) {
  std::string text;
  if (const Tensor* tensor = value.tensor()) {
    text = "t" + std::to_string(std::bit_cast<uintptr_t>(tensor));
  } else if (const Object* object = value.object()) {
    text = "o" + std::to_string(static_cast<int>(object->call)) + object->name;
  } else if (value.get_if<List>() != nullptr) {
    text = "l";
  } else if (value.get_if<Tuple>() != nullptr) {
    text = "u";
  } else if (value.get_if<Dict>() != nullptr) {
    text = "m";
  } else {
    text = key_text(value);
  }
  text += "{";
  for_each_child(
      value, [&](const Value& child) { text += content_text(child) + ","; });
  return text + "}";
}

class Pruner {
 public:
  explicit Pruner(std::vector<std::string>* dropped) : dropped_(dropped) {}

  Value run(const Value& value, const std::string& place) {
    const Dict* dict = value.get_if<Dict>();
    if (dict == nullptr) {
      return drops(value, place) ? Value() : value;
    }
    Dict out;
    out.ordered = dict->ordered;
    for (const DictEntry& entry : dict->entries) {
      const std::string* name = entry.key.get_if<std::string>();
      const std::string inside = place + "[" +
          (name != nullptr ? "'" + *name + "'" : describe(entry.key)) + "]";
      if (drops(entry.key, inside)) {
        continue;
      }
      if (entry.value.get_if<Dict>() != nullptr) {
        out.entries.push_back({entry.key, run(entry.value, inside)});
      } else if (!drops(entry.value, inside)) {
        out.entries.push_back(entry);
      }
    }
    if (dict->attributes != nullptr &&
        !drops(*dict->attributes, place + ".__dict__")) {
      out.attributes = dict->attributes;
    }
    return out;
  }

 private:
  bool drops(const Value& value, const std::string& place) {
    const std::string name = unknown_in(value);
    if (!name.empty()) {
      dropped_->push_back(place + " (an object of " + name + ")");
    }
    return !name.empty();
  }

  std::vector<std::string>* dropped_;
};

} // namespace

Value::Value(bool value) : data_(value) {}
Value::Value(int value) : data_(int64_t{value}) {}
Value::Value(int64_t value) : data_(value) {}
Value::Value(double value) : data_(value) {}
Value::Value(const char* text) : data_(std::string(text)) {}
Value::Value(std::string text) : data_(std::move(text)) {}
Value::Value(List items) : data_(std::move(items)) {}
Value::Value(Tuple items) : data_(std::move(items)) {}
Value::Value(Dict dict) : data_(std::move(dict)) {}
Value::Value(Data data) : data_(std::move(data)) {}

Value::Value(Tensor tensor)
    : data_(std::make_shared<const Tensor>(std::move(tensor))) {}

Value::Value(Object object)
    : data_(std::make_shared<const Object>(std::move(object))) {}

const Tensor* Value::tensor() const {
  const auto* found = get_if<std::shared_ptr<const Tensor>>();
  return found == nullptr ? nullptr : found->get();
}

const Object* Value::object() const {
  const auto* found = get_if<std::shared_ptr<const Object>>();
  return found == nullptr ? nullptr : found->get();
}

const Value* Value::find(std::string_view key) const {
  return find_key(*this, key);
}

const Value* Value::find(int64_t key) const {
  return find_key(*this, key);
}

Value& Value::set(Value key, Value value) {
  Dict& dict = std::get<Dict>(data_);
  const std::string text = key_text(key);
  if (text.empty()) {
    throw std::invalid_argument(describe(key) + " cannot be a dict's key");
  }
  for (DictEntry& entry : dict.entries) {
    if (key_text(entry.key) == text) {
      entry.value = std::move(value);
      return entry.value;
    }
  }
  dict.entries.push_back({std::move(key), std::move(value)});
  return dict.entries.back().value;
}

Value& Value::append(Value value) {
  return std::get<List>(data_).emplace_back(std::move(value));
}

Value make_dict() {
  return Value(Dict{});
}

Value make_ordered_dict() {
  Dict dict;
  dict.ordered = true;
  return Value(std::move(dict));
}

std::string key_text(const Value& key) {
  // Python takes 1, 1.0 and True for the same key.
  if (const bool* truth = key.get_if<bool>()) {
    return "i" + std::to_string(*truth ? 1 : 0);
  }
  if (const int64_t* integer = key.get_if<int64_t>()) {
    return "i" + std::to_string(*integer);
  }
  if (const double* real = key.get_if<double>()) {
    // Beyond 2^53 the cast below would not be exact.
    constexpr double kExact = 9007199254740992.0;
    if (std::fabs(*real) < kExact && std::trunc(*real) == *real) {
      return "i" + std::to_string(static_cast<int64_t>(*real));
    }
    return "d" + std::to_string(std::bit_cast<uint64_t>(*real));
  }
  if (const std::string* text = key.get_if<std::string>()) {
    return "s" + std::to_string(text->size()) + ":" + *text;
  }
  if (const BigInteger* integer = key.get_if<BigInteger>()) {
    return "b" + std::to_string(integer->bytes.size()) + ":" + integer->bytes;
  }
  if (const Object* object = key.object()) {
    return object->call == Object::Call::unknown ? "" : content_text(key);
  }
  if (const Tuple* tuple = key.get_if<Tuple>()) {
    std::string text = "(";
    for (const Value& item : tuple->items) {
      const std::string part = key_text(item);
      if (part.empty()) {
        return "";
      }
      text += part + ",";
    }
    return text + ")";
  }
  return key.is_none() ? "n" : "";
}

std::string unknown_in(const Value& value) {
  const Object* object = value.object();
  if (object != nullptr && object->call == Object::Call::unknown) {
    return object->name;
  }
  std::string found;
  for_each_child(value, [&](const Value& child) {
    if (found.empty()) {
      found = unknown_in(child);
    }
  });
  return found;
}

Value without_unknown(const Value& value, std::vector<std::string>* dropped) {
  return Pruner(dropped).run(value, "");
}

std::string describe(const Value& value) {
  return std::visit(Describe{}, value.data());
}

} // namespace deepspeed::formats
