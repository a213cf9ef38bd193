// A value together with the way to it, so that every complaint names the place.
#include "deepspeed/formats/field.h"

#include "deepspeed/base/error.h"

namespace deepspeed::formats {
namespace {

std::string step_of(std::string_view key) {
  return "['" + std::string(key) + "']";
}

std::string step_of(int64_t key) {
  return "[" + std::to_string(key) + "]";
}

// The alternative T of the field's value; `expected` is for the message.
template <typename T>
const T& expect(const Field& field, const char* expected) {
  const T* found = field.value().get_if<T>();
  if (found == nullptr) {
    field.fail(
        std::string("expected ") + expected + ", found " +
        describe(field.value()));
  }
  return *found;
}

} // namespace

void Field::fail(const std::string& what) const {
  throw base::Error(
      base::ExitCode::data,
      what,
      place_.empty() ? file_ : file_ + ": " + place_,
      "");
}

std::optional<Field> Field::find(std::string_view key) const {
  dict();
  const Value* found = value_->find(key);
  return found == nullptr ? std::nullopt
                          : std::optional(Field(*this, *found, step_of(key)));
}

std::optional<Field> Field::find(int64_t key) const {
  dict();
  const Value* found = value_->find(key);
  return found == nullptr ? std::nullopt
                          : std::optional(Field(*this, *found, step_of(key)));
}

Field Field::at(std::string_view key) const {
  const std::optional<Field> found = find(key);
  if (!found) {
    fail("no key '" + std::string(key) + "'");
  }
  return *found;
}

Field Field::at(int64_t key_or_index) const {
  if (value_->get_if<Dict>() != nullptr) {
    const std::optional<Field> found = find(key_or_index);
    if (!found) {
      fail("no key " + std::to_string(key_or_index));
    }
    return *found;
  }
  const List& list = items();
  if (key_or_index < 0 || static_cast<uint64_t>(key_or_index) >= list.size()) {
    fail(
        "no item " + std::to_string(key_or_index) + " among " +
        std::to_string(list.size()));
  }
  const Value& item = list[static_cast<size_t>(key_or_index)];
  return Field(*this, item, step_of(key_or_index));
}

bool Field::boolean() const {
  return expect<bool>(*this, "True or False");
}

int64_t Field::integer() const {
  return expect<int64_t>(*this, "an integer");
}

double Field::real() const {
  if (const int64_t* integer = value_->get_if<int64_t>()) {
    return static_cast<double>(*integer);
  }
  return expect<double>(*this, "a number");
}

const std::string& Field::string() const {
  return expect<std::string>(*this, "a string");
}

const List& Field::items() const {
  if (const Tuple* tuple = value_->get_if<Tuple>()) {
    return tuple->items;
  }
  return expect<List>(*this, "a list or a tuple");
}

const Dict& Field::dict() const {
  return expect<Dict>(*this, "a dict");
}

const Tensor& Field::tensor() const {
  return *expect<std::shared_ptr<const Tensor>>(*this, "a tensor");
}

} // namespace deepspeed::formats
