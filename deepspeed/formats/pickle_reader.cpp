// Reading pickles: a machine with a stack, a memo and no way to run anything.
#include <algorithm>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/pickle_graph.h"
#include "deepspeed/formats/pickle_names.h"
#include "deepspeed/formats/pickle_ops.h"
#include "deepspeed/formats/pickle_rebuild.h"
#include "deepspeed/formats/utf8.h"

namespace deepspeed::formats {
namespace {

using namespace pickle;

constexpr size_t kMaxNodes = size_t{1} << 21;
constexpr size_t kMaxNameBytes = 200; // of a global, module and name each

// Name and module come from the file: only what is printable is shown.
std::string printable(std::string_view text) {
  std::string shown(text.substr(0, kMaxNameBytes));
  std::replace_if(
      shown.begin(),
      shown.end(),
      [](char c) { return c < 0x20 || c > 0x7e; },
      '?');
  return shown;
}

class Machine {
 public:
  Machine(
      std::span<const std::byte> bytes,
      const StorageSource& storages,
      const std::string& source)
      : bytes_(bytes), source_(source), rebuilder_(graph_, storages) {}

  Value run() {
    if (u8() != static_cast<uint8_t>(Op::proto)) {
      fail("this is not a pickle of protocol 2");
    }
    if (const uint64_t protocol = u8(); protocol != kProtocol) {
      fail(
          "pickle protocol " + std::to_string(protocol) +
          ", only protocol 2 is read");
    }
    while (true) {
      op_at_ = at_;
      const Op op = static_cast<Op>(u8());
      if (op == Op::stop) {
        break;
      }
      if (!constant(op) && !container(op) && !reference(op)) {
        fail(
            "opcode " + std::to_string(static_cast<int>(op)) +
            " is not allowed");
      }
    }
    if (stack_.size() != 1 || !marks_.empty() || at_ != bytes_.size()) {
      fail("the pickle does not end with one value");
    }
    Value value;
    std::string fault;
    if (!flatten(graph_, stack_[0], bytes_.size(), &value, &fault)) {
      fail(fault);
    }
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw base::Error(
        base::ExitCode::data,
        what,
        source_ + ", byte " + std::to_string(op_at_),
        "");
  }

  // Opcodes that push one plain value.
  bool constant(Op op) {
    switch (op) {
      case Op::none:
        push(Node::Kind::none);
        return true;
      case Op::newtrue:
      case Op::newfalse:
        push(Node::Kind::boolean).number = op == Op::newtrue;
        return true;
      case Op::binint:
        push_integer(static_cast<int32_t>(little(4)));
        return true;
      case Op::binint1:
        push_integer(static_cast<int64_t>(little(1)));
        return true;
      case Op::binint2:
        push_integer(static_cast<int64_t>(little(2)));
        return true;
      case Op::long1:
        push_long(u8());
        return true;
      case Op::long4:
        push_long(little(4));
        return true;
      case Op::binfloat:
        push(Node::Kind::real).number =
            static_cast<int64_t>(__builtin_bswap64(little(8)));
        return true;
      case Op::binunicode:
        push_string();
        return true;
      default:
        return false;
    }
  }

  // Opcodes that make containers and fill them.
  bool container(Op op) {
    switch (op) {
      case Op::mark:
        marks_.push_back(stack_.size());
        return true;
      case Op::empty_list:
        push(Node::Kind::list);
        return true;
      case Op::empty_dict:
        push(Node::Kind::dict);
        return true;
      case Op::empty_tuple:
        make_tuple(0);
        return true;
      case Op::tuple1:
        make_tuple(1);
        return true;
      case Op::tuple2:
        make_tuple(2);
        return true;
      case Op::tuple3:
        make_tuple(3);
        return true;
      case Op::tuple:
        make_tuple(pop_mark());
        return true;
      case Op::append:
        fill(1, false);
        return true;
      case Op::appends:
        fill(pop_mark(), false);
        return true;
      case Op::setitem:
        fill(2, true);
        return true;
      case Op::setitems:
        fill(pop_mark(), true);
        return true;
      default:
        return false;
    }
  }

  // Opcodes that name things, and those that would call them.
  bool reference(Op op) {
    switch (op) {
      case Op::binput:
        put(little(1));
        return true;
      case Op::long_binput:
        put(little(4));
        return true;
      case Op::binget:
        get(little(1));
        return true;
      case Op::long_binget:
        get(little(4));
        return true;
      case Op::global:
        push_global();
        return true;
      case Op::reduce:
        call(Object::Call::function);
        return true;
      case Op::newobj:
        call(Object::Call::constructor);
        return true;
      case Op::build:
        build();
        return true;
      case Op::binpersid: {
        const NodeId id = pop();
        push_result(rebuilder_.storage(id));
        return true;
      }
      default:
        return false;
    }
  }

  uint64_t u8() {
    return little(1);
  }

  uint64_t little(size_t n) {
    const std::span<const std::byte> part = take(n);
    uint64_t value = 0;
    for (size_t i = 0; i < n; ++i) {
      value |= std::to_integer<uint64_t>(part[i]) << (8 * i);
    }
    return value;
  }

  std::span<const std::byte> take(size_t n) {
    if (n > bytes_.size() - at_) {
      fail("the pickle ends in the middle");
    }
    const auto part = bytes_.subspan(at_, n);
    at_ += n;
    return part;
  }

  std::string_view take_text(size_t n) {
    const auto part = take(n);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  Node& push(Node::Kind kind) {
    if (graph_.nodes.size() >= kMaxNodes) {
      fail("more than " + std::to_string(kMaxNodes) + " values");
    }
    stack_.push_back(static_cast<NodeId>(graph_.nodes.size()));
    Node& node = graph_.nodes.emplace_back();
    node.kind = kind;
    return node;
  }

  void push_integer(int64_t value) {
    push(Node::Kind::integer).number = value;
  }

  // Two's complement of as many bytes as it takes.
  void push_long(size_t size) {
    if (size > 8) {
      push(Node::Kind::big_integer).text = take_text(size);
      return;
    }
    uint64_t value = little(size);
    if (size > 0 && size < 8 && (value >> (8 * size - 1)) != 0) {
      value |= ~uint64_t{0} << (8 * size);
    }
    push_integer(static_cast<int64_t>(value));
  }

  void push_string() {
    const std::string_view text = take_text(little(4));
    if (!is_utf8(text)) {
      fail("a string is not valid UTF-8");
    }
    push(Node::Kind::string).text = text;
  }

  std::string_view take_line() {
    const std::string_view rest(
        reinterpret_cast<const char*>(bytes_.data()) + at_,
        std::min(bytes_.size() - at_, kMaxNameBytes + 1));
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) {
      fail("a name is longer than " + std::to_string(kMaxNameBytes));
    }
    at_ += end + 1;
    return rest.substr(0, end);
  }

  void push_global() {
    const std::string module(take_line());
    const std::string full = module + "." + std::string(take_line());
    const NameKind kind = kind_of_name(full);
    if (kind == NameKind::forbidden) {
      throw base::Error(
          base::ExitCode::data,
          "not allowed: " + printable(full),
          source_ + ", byte " + std::to_string(op_at_),
          "the file asks for code that could do anything: do not load it "
          "elsewhere either");
    }
    Node& node = push(Node::Kind::global);
    node.text = graph_.names.emplace_back(full);
    node.number = static_cast<int64_t>(kind);
  }

  // Elements above the last mark; the mark goes.
  size_t pop_mark() {
    if (marks_.empty()) {
      fail("no mark");
    }
    const size_t count = stack_.size() - marks_.back();
    marks_.pop_back();
    return count;
  }

  // No opcode reaches below the last mark.
  void need(size_t n) const {
    const size_t base = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() < base + n) {
      fail("the stack is empty");
    }
  }

  NodeId pop() {
    need(1);
    const NodeId id = stack_.back();
    stack_.pop_back();
    return id;
  }

  void make_tuple(size_t n) {
    need(n);
    std::vector<NodeId> items(
        stack_.end() - static_cast<std::ptrdiff_t>(n), stack_.end());
    stack_.resize(stack_.size() - n);
    push(Node::Kind::tuple).items = std::move(items);
  }

  // Moves the top n elements into the list or the dict below them.
  void fill(size_t n, bool pairs) {
    need(n + 1);
    const auto first = stack_.end() - static_cast<std::ptrdiff_t>(n);
    Node& target = graph_.nodes[*(first - 1)];
    if (target.kind == Node::Kind::object && (!pairs || n % 2 == 0)) {
      const std::string fault =
          rebuilder_.fill(target, {first, stack_.end()}, pairs);
      if (!fault.empty()) {
        fail(fault);
      }
      stack_.resize(stack_.size() - n);
      return;
    }
    const bool is_dict = target.kind == Node::Kind::dict ||
        target.kind == Node::Kind::ordered_dict;
    if ((pairs ? !is_dict : target.kind != Node::Kind::list) ||
        (pairs && n % 2 != 0)) {
      fail("items for what is not a container of that kind");
    }
    target.items.insert(target.items.end(), first, stack_.end());
    stack_.resize(stack_.size() - n);
  }

  void put(uint64_t index) {
    need(1);
    // Python counts up from 0, so a gap is a sign of forgery.
    if (index > memo_.size()) {
      fail("memo index " + std::to_string(index) + " is out of order");
    }
    if (index == memo_.size()) {
      memo_.push_back(stack_.back());
    } else {
      memo_[index] = stack_.back();
    }
  }

  void get(uint64_t index) {
    if (index >= memo_.size()) {
      fail("memo index " + std::to_string(index) + " is not set");
    }
    stack_.push_back(memo_[index]);
  }

  void push_result(Rebuilder::Result result) {
    if (!result.fault.empty()) {
      fail(result.fault);
    }
    push(result.node.kind) = std::move(result.node);
  }

  void call(Object::Call how) {
    const NodeId arguments = pop();
    const NodeId callee = pop();
    push_result(rebuilder_.call(how, callee, arguments));
  }

  void build() {
    const NodeId state = pop();
    need(1);
    const std::string fault = rebuilder_.build(stack_.back(), state);
    if (!fault.empty()) {
      fail(fault);
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  size_t at_ = 0;
  size_t op_at_ = 0;
  Graph graph_;
  Rebuilder rebuilder_;
  std::vector<NodeId> stack_;
  std::vector<size_t> marks_; // stack sizes
  std::vector<NodeId> memo_;
};

} // namespace

Value read_pickle(
    std::span<const std::byte> bytes,
    const StorageSource& storages,
    const std::string& source) {
  return Machine(bytes, storages, source).run();
}

} // namespace deepspeed::formats
