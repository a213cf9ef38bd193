// Writing pickles with the opcodes that Python's own pickler chooses.
#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <stdexcept>
#include <unordered_map>

#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/pickle_names.h"
#include "deepspeed/formats/pickle_ops.h"
#include "deepspeed/formats/utf8.h"

namespace deepspeed::formats {
namespace {

using namespace pickle;

class Writer {
 public:
  Pickle run(const Value& value) {
    op(Op::proto);
    number(kProtocol, 1);
    write(value, 0);
    op(Op::stop);
    return std::move(out_);
  }

 private:
  void op(Op op) {
    out_.bytes += static_cast<char>(op);
  }

  void number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) {
      out_.bytes += static_cast<char>(value >> (8 * i));
    }
  }

  // Python puts every container and string into the memo, used again or not.
  uint32_t put() {
    op(memo_size_ < 256 ? Op::binput : Op::long_binput);
    number(memo_size_, memo_size_ < 256 ? 1 : 4);
    return memo_size_++;
  }

  void get(uint32_t index) {
    op(index < 256 ? Op::binget : Op::long_binget);
    number(index, index < 256 ? 1 : 4);
  }

  // True if `text` stands in the memo, and was fetched from there.
  bool recall(const std::string& text) {
    const auto found = memo_.find(text);
    if (found == memo_.end()) {
      return false;
    }
    get(found->second);
    return true;
  }

  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) {
      throw std::invalid_argument("the tree is too deep for a file");
    }
    std::visit(
        [&](const auto& data) { write_data(data, depth); }, value.data());
  }

  void write_data(std::monostate, int) {
    op(Op::none);
  }

  void write_data(bool value, int) {
    op(value ? Op::newtrue : Op::newfalse);
  }

  void write_data(int64_t value, int) {
    if (value >= 0 && value <= 0xff) {
      op(Op::binint1);
      number(static_cast<uint64_t>(value), 1);
    } else if (value >= 0 && value <= 0xffff) {
      op(Op::binint2);
      number(static_cast<uint64_t>(value), 2);
    } else if (value == static_cast<int32_t>(value)) {
      op(Op::binint);
      number(static_cast<uint64_t>(value), 4);
    } else {
      write_long(value);
    }
  }

  // The fewest bytes of two's complement that keep the sign.
  void write_long(int64_t value) {
    int bytes = 8;
    while (bytes > 1 &&
           value >> (8 * (bytes - 1) - 1) == (value < 0 ? -1 : 0)) {
      --bytes;
    }
    op(Op::long1);
    number(static_cast<uint64_t>(bytes), 1);
    number(static_cast<uint64_t>(value), bytes);
  }

  void write_data(const BigInteger& integer, int) {
    const size_t size = integer.bytes.size();
    op(size < 256 ? Op::long1 : Op::long4);
    number(size, size < 256 ? 1 : 4);
    out_.bytes += integer.bytes;
  }

  void write_data(double value, int) {
    op(Op::binfloat);
    number(__builtin_bswap64(std::bit_cast<uint64_t>(value)), 8);
  }

  void write_data(const std::string& text, int) {
    const std::string memo_key = "s" + text;
    if (recall(memo_key)) {
      return;
    }
    if (!is_utf8(text) || text.size() > std::numeric_limits<uint32_t>::max()) {
      throw std::invalid_argument("a string is not UTF-8 or is too long");
    }
    op(Op::binunicode);
    number(text.size(), 4);
    out_.bytes += text;
    memo_[memo_key] = put();
  }

  void write_data(const List& list, int depth) {
    op(Op::empty_list);
    put();
    write_items(list, depth);
  }

  void write_items(const List& list, int depth) {
    if (list.size() == 1) {
      write(list[0], depth + 1);
      op(Op::append);
      return;
    }
    for (size_t i = 0; i < list.size(); i += kBatch) {
      op(Op::mark);
      for (size_t j = i; j < std::min(i + kBatch, list.size()); ++j) {
        write(list[j], depth + 1);
      }
      op(Op::appends);
    }
  }

  void write_data(const Tuple& tuple, int depth) {
    const List& items = tuple.items;
    constexpr Op kShort[] = {
        Op::empty_tuple, Op::tuple1, Op::tuple2, Op::tuple3};
    const bool is_short = items.size() < std::size(kShort);
    if (!is_short) {
      op(Op::mark);
    }
    for (const Value& item : items) {
      write(item, depth + 1);
    }
    op(is_short ? kShort[items.size()] : Op::tuple);
    if (!items.empty()) {
      put();
    }
  }

  void write_data(const Dict& dict, int depth) {
    if (dict.ordered) {
      global(kOrderedDict);
      op(Op::empty_tuple);
      op(Op::reduce);
    } else {
      op(Op::empty_dict);
    }
    put();
    write_entries(dict.entries, dict.ordered, depth);
    if (dict.attributes != nullptr) {
      if (!dict.ordered) {
        throw std::invalid_argument("only an OrderedDict has attributes");
      }
      write(*dict.attributes, depth + 1);
      op(Op::build);
    }
  }

  void write_entries(
      const std::vector<DictEntry>& entries,
      bool ordered,
      int depth) {
    const auto write_entry = [&](const DictEntry& entry) {
      if (key_text(entry.key).empty()) {
        throw std::invalid_argument(
            describe(entry.key) + " cannot be a dict's key");
      }
      write(entry.key, depth + 1);
      write(entry.value, depth + 1);
    };
    const size_t count = entries.size();
    for (size_t i = 0; i < count; i += kBatch) {
      // Python looks ahead in an OrderedDict for each batch, in a plain dict
      // only for the whole.
      if (i + 1 == count && (i == 0 || ordered)) {
        write_entry(entries[i]);
        op(Op::setitem);
        return;
      }
      op(Op::mark);
      for (size_t j = i; j < std::min(i + kBatch, count); ++j) {
        write_entry(entries[j]);
      }
      op(Op::setitems);
    }
  }

  void global(std::string_view name) {
    const std::string memo_key = "g" + std::string(name);
    if (recall(memo_key)) {
      return;
    }
    const size_t dot = name.rfind('.');
    if (dot == std::string_view::npos ||
        name.find('\n') != std::string_view::npos) {
      throw std::invalid_argument("'" + std::string(name) + "' is no global");
    }
    op(Op::global);
    out_.bytes += name.substr(0, dot);
    out_.bytes += '\n';
    out_.bytes += name.substr(dot + 1);
    out_.bytes += '\n';
    memo_[memo_key] = put();
  }

  void write_data(const std::shared_ptr<const Object>& object, int depth) {
    // Whatever a caller made: only plain data is written.
    if (object->call == Object::Call::unknown ||
        kind_of_name(object->name) > NameKind::plain) {
      throw std::invalid_argument(
          "an object of the unknown class " + object->name);
    }
    global(object->name);
    if (object->call == Object::Call::none) {
      return;
    }
    write_data(Tuple{object->arguments}, depth + 1);
    op(object->call == Object::Call::function ? Op::reduce : Op::newobj);
    put();
    write_items(object->items, depth + 1);
    write_entries(object->entries, true, depth + 1);
    if (!object->state.is_none()) {
      write(object->state, depth + 1);
      op(Op::build);
    }
  }

  void write_data(const std::shared_ptr<const Tensor>& tensor, int) {
    if (const std::string fault = tensor_fault(*tensor); !fault.empty()) {
      throw std::invalid_argument(fault);
    }
    if (tensor->is_parameter) {
      global(kRebuildParameter);
    }
    const bool typed = storage_class(tensor->dtype).empty();
    global(typed ? kRebuildTypedTensor : kRebuildTensor);
    op(Op::mark);
    persistent_id(*tensor);
    write_data(tensor->storage_offset, 0);
    write_data(integers(tensor->sizes), 0);
    write_data(integers(tensor->strides), 0);
    // A parameter's data does not require a gradient; the parameter does.
    write_data(tensor->requires_grad && !tensor->is_parameter, 0);
    no_hooks();
    if (typed) {
      global("torch." + std::string(dtype_name(tensor->dtype)));
    }
    op(Op::tuple);
    put();
    op(Op::reduce);
    put();
    if (tensor->is_parameter) {
      write_data(tensor->requires_grad, 0);
      no_hooks();
      op(Op::tuple3);
      put();
      op(Op::reduce);
      put();
    }
  }

  static Tuple integers(const std::vector<int64_t>& values) {
    return Tuple{List(values.begin(), values.end())};
  }

  // The backward hooks of a tensor: always an empty OrderedDict.
  void no_hooks() {
    global(kOrderedDict);
    op(Op::empty_tuple);
    op(Op::reduce);
    put();
  }

  void persistent_id(const Tensor& tensor) {
    const size_t width = dtype_size(tensor.dtype);
    const size_t bytes = tensor.storage->size();
    if (bytes % width != 0) {
      throw std::invalid_argument(
          "a storage of " + std::to_string(bytes) + " bytes cannot hold " +
          describe(tensor));
    }
    const bool typed = storage_class(tensor.dtype).empty();
    const std::string name = typed
        ? std::string(kUntypedStorage)
        : "torch." + std::string(storage_class(tensor.dtype));
    // torch takes the dtype of a key from the first tensor that names it, so
    // that bytes seen as two dtypes are stored twice.
    const auto [found, is_new] = keys_.try_emplace(
        std::pair(tensor.storage.get(), name), out_.storages.size());
    if (is_new) {
      out_.storages.push_back(tensor.storage);
    }
    op(Op::mark);
    write_data(std::string("storage"), 0);
    global(name);
    write_data(std::to_string(found->second), 0);
    write_data(std::string("cpu"), 0);
    write_data(static_cast<int64_t>(typed ? bytes : bytes / width), 0);
    op(Op::tuple);
    put();
    op(Op::binpersid);
  }

  Pickle out_;
  uint32_t memo_size_ = 0;
  std::unordered_map<std::string, uint32_t> memo_; // strings and globals
  std::map<std::pair<const Storage*, std::string>, size_t> keys_;
};

} // namespace

Pickle write_pickle(const Value& value) {
  return Writer().run(value);
}

} // namespace deepspeed::formats
