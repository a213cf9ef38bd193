// The tree of plain values that a torch file holds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "deepspeed/formats/tensor.h"

namespace deepspeed::formats {

class Value;
struct DictEntry;
struct Object;

using List = std::vector<Value>;

struct Tuple {
  List items;
};

// An integer that has no room in 64 bits.
struct BigInteger {
  std::string bytes; // two's complement, the lowest byte first
};

// Entries in the order of insertion, keys unique.
struct Dict {
  std::vector<DictEntry> entries;
  bool ordered = false; // a collections.OrderedDict
  // What stands in an OrderedDict's __dict__: {"_metadata": ...} in the state
  // dict of a torch module. Null if there is nothing.
  std::shared_ptr<const Value> attributes;
};

// One Python value. Copying copies the tree; tensors and objects are shared.
// Trees that come from a file are at most kMaxValueDepth deep.
class Value {
 public:
  using Data = std::variant<
      std::monostate, // None
      bool,
      int64_t,
      BigInteger,
      double,
      std::string, // UTF-8
      List,
      Tuple,
      Dict,
      std::shared_ptr<const Tensor>,
      std::shared_ptr<const Object>>;

  Value() = default; // None
  Value(bool value);
  Value(int value);
  Value(int64_t value);
  Value(double value);
  Value(const char* text);
  Value(std::string text);
  Value(List items);
  Value(Tuple items);
  Value(Dict dict);
  Value(Tensor tensor);
  Value(Object object);
  explicit Value(Data data);

  const Data& data() const {
    return data_;
  }
  // A pointer to the alternative T of Data, null if it is another one.
  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  bool is_none() const {
    return data_.index() == 0;
  }
  // Null if this is not a tensor or not an object.
  const Tensor* tensor() const;
  const Object* object() const;

  // The value of a dict's key, null if it is absent or this is no dict.
  const Value* find(std::string_view key) const;
  const Value* find(int64_t key) const;

  // Building. set() adds an entry or replaces the one of that key; `this` must
  // be a dict, and a list for append(), else std::bad_variant_access. A key
  // that Python cannot hash: std::invalid_argument. set() looks at all entries.
  Value& set(Value key, Value value);
  Value& append(Value value);

 private:
  Data data_;
};

inline constexpr int kMaxValueDepth = 100;

struct DictEntry {
  Value key; // string, number, None, an object, or a tuple of those
  Value value;
};

// A Python object that is kept as a record and never made: what would have been
// called, with what, and the state it would have been given.
struct Object {
  enum class Call {
    none, // the global itself, such as torch.float32
    function, // name(*arguments)
    constructor, // name.__new__(name, *arguments)
    // Something of a class that nobody here knows, or that class: only `name`
    // was kept. It cannot be written.
    unknown,
  };
  std::string name; // "module.Class"
  Call call = Call::none;
  List arguments = {};
  Value state = {}; // None if there is no state
  List items = {}; // appended to it (collections.deque), or ...
  std::vector<DictEntry> entries = {}; // ... set in it (defaultdict)
};

// The class of the first unknown object in the tree, "" if there is none.
std::string unknown_in(const Value& value);

// The tree without the dict entries, at any depth, that hold an unknown object.
// Each of them adds "['args']['mode'] (an object of my.Mode)" to `dropped`. A
// value that is no dict and holds one becomes None.
Value without_unknown(const Value& value, std::vector<std::string>* dropped);

Value make_dict();
Value make_ordered_dict();

// "a dict with 3 entries", "the string 'abc'", for messages.
std::string describe(const Value& value);

// A text that is equal for keys that are equal in Python (1 == 1.0 == True).
// Empty if the value cannot be a key.
std::string key_text(const Value& key);

} // namespace deepspeed::formats
