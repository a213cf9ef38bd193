// A value together with the way to it, so that every complaint names the place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "deepspeed/formats/value.h"

namespace deepspeed::formats {

// Reads a tree step by step: field.at("optimizer").at("state").at(0). All
// complaints are Error(data) that give the file and the place, such as
// "['optimizer']['state'][0]". Does not own the value.
class Field {
 public:
  // The root of the tree of `file`.
  Field(const Value& value, std::string file)
      : value_(&value), file_(std::move(file)) {}

  // The entry of a dict; error if it is absent.
  Field at(std::string_view key) const;
  // The entry of a dict with that integer key, or the item of a list or tuple.
  Field at(int64_t key_or_index) const;
  // As at(), but nothing if the dict has no such key.
  std::optional<Field> find(std::string_view key) const;
  std::optional<Field> find(int64_t key) const;

  bool is_none() const {
    return value_->is_none();
  }
  bool boolean() const;
  int64_t integer() const;
  double real() const; // an integer will do
  const std::string& string() const;
  const List& items() const; // of a list or a tuple
  const Dict& dict() const;
  const Tensor& tensor() const;
  const Value& value() const {
    return *value_;
  }

  // "['optimizer']['state'][0]"
  const std::string& place() const {
    return place_;
  }
  const std::string& file() const {
    return file_;
  }
  // Throws Error(data): `what`, at this place of the file.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  Field(const Field& parent, const Value& value, const std::string& step)
      : value_(&value), file_(parent.file_), place_(parent.place_ + step) {}

  const Value* value_;
  std::string file_;
  std::string place_;
};

} // namespace deepspeed::formats
