// Pickles come back, and hostile ones are refused before they cost anything.
#include "deepspeed/formats/pickle.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/dump.h"

namespace deepspeed::formats {
namespace {

using namespace std::string_literals;

// Sixteen floats under every key.
std::shared_ptr<const Storage> sixteen_floats(const std::string&) {
  static const float values[16] = {};
  return std::make_shared<const Storage>(
      Storage{std::as_bytes(std::span(values)), nullptr});
}

Value read(const std::string& pickle) {
  return read_pickle(
      std::as_bytes(std::span(pickle.data(), pickle.size())),
      sixteen_floats,
      "data.pkl");
}

// The complaint about the opcodes between PROTO and STOP.
std::string complaint(const std::string& body) {
  try {
    read("\x80\x02"s + body + ".");
    return "";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    EXPECT_TRUE(error.where().starts_with("data.pkl, byte ")) << error.where();
    return error.what();
  }
}

std::string text(const std::string& value) {
  return "X"s + static_cast<char>(value.size()) + "\0\0\0"s + value;
}

const std::string kFloatStorage = "ctorch\nFloatStorage\n";
const std::string kOrdered = "ccollections\nOrderedDict\n)R";

std::string persistent_id(const std::string& numel = "K\x10") {
  return "(" + text("storage") + kFloatStorage + text("0") + text("cpu") +
      numel + "tQ";
}

std::string tensor(
    const std::string& offset,
    const std::string& sizes,
    const std::string& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + persistent_id() + offset +
      sizes + strides + "\x89"s + kOrdered + "tR";
}

TEST(Pickle, RoundTrip) {
  Value tree = make_dict();
  List integers;
  for (int shift = 0; shift < 63; ++shift) {
    for (const int64_t delta : {-1, 0, 1}) {
      integers.emplace_back((int64_t{1} << shift) + delta);
      integers.emplace_back(-(int64_t{1} << shift) + delta);
    }
  }
  integers.emplace_back(std::numeric_limits<int64_t>::min());
  integers.emplace_back(std::numeric_limits<int64_t>::max());
  tree.set("integers", integers);
  tree.set("reals", List{-0.0, 1e300, INFINITY, 5e-324});
  tree.set("plain", Tuple{{Value(), true, false, "Grüße", ""}});
  tree.set(7, make_ordered_dict()).set("x", Tuple{});
  tree.set("deep", List{Value(List{Value(List{})})});
  const Pickle pickle = write_pickle(tree);
  EXPECT_EQ(dump(read(pickle.bytes)).dump(), dump(tree).dump());
  EXPECT_TRUE(std::signbit(*read(pickle.bytes)
                                .find("reals")
                                ->get_if<List>()
                                ->at(0)
                                .get_if<double>()));
}

TEST(Pickle, BatchesLikePython) {
  for (const int n : {0, 1, 2, 999, 1000, 1001, 2000, 2001}) {
    List list;
    Value plain = make_dict();
    Value ordered = make_ordered_dict();
    for (int i = 0; i < n; ++i) {
      list.emplace_back(i);
      plain.set(i, i);
      ordered.set(i, i);
    }
    const Value tree(List{list, plain, ordered});
    EXPECT_EQ(dump(read(write_pickle(tree).bytes)).dump(), dump(tree).dump());
  }
}

TEST(Pickle, SharedStorageIsNamedOnce) {
  const float values[6] = {};
  Tensor whole = Tensor::borrow(DType::float32, {6}, values);
  Tensor part = whole;
  part.sizes = {2, 2};
  part.strides = {3, 1};
  part.storage_offset = 1;
  const Pickle pickle =
      write_pickle(List{whole, part, Tensor::borrow(DType::int8, {3}, values)});
  ASSERT_EQ(pickle.storages.size(), 2u);
  EXPECT_EQ(pickle.storages[0], whole.storage);
  EXPECT_EQ(pickle.storages[1]->bytes.size(), 3u);
}

TEST(Pickle, WriterRefusesWhatItCannotWrite) {
  const float values[6] = {};
  Tensor bad = Tensor::borrow(DType::float32, {6}, values);
  bad.storage_offset = 1;
  EXPECT_THROW(write_pickle(bad), std::invalid_argument);
  bad = Tensor::borrow(DType::int8, {6}, values);
  bad.dtype = DType::float32;
  bad.sizes = {1};
  EXPECT_THROW(write_pickle(bad), std::invalid_argument);
  EXPECT_THROW(write_pickle("\xff"), std::invalid_argument);
  EXPECT_THROW(make_dict().set(List{}, 1), std::invalid_argument);
  Value deep;
  for (int i = 0; i < kMaxValueDepth; ++i) {
    deep = Value(List{deep});
  }
  EXPECT_EQ(dump(read(write_pickle(deep).bytes)).dump(), dump(deep).dump());
  EXPECT_THROW(write_pickle(List{deep}), std::invalid_argument);
}

TEST(Pickle, NoCodeIsRun) {
  const std::string call = text("touch /tmp/pwned") + "\x85R"s;
  EXPECT_EQ(complaint("cposix\nsystem\n" + call), "not allowed: posix.system");
  EXPECT_EQ(
      complaint("cbuiltins\neval\n" + call), "not allowed: builtins.eval");
  EXPECT_EQ(complaint("ctorch\nload\n" + call), "not allowed: torch.load");
  EXPECT_EQ(complaint("ca\nb\x1b[2J\n" + call), "not allowed: a.b?[2J");
  // Protocol 4 takes the name from the stack; 0 has INST and OBJ.
  EXPECT_EQ(
      complaint("\x8c\x05posix\x8c\x06system\x93" + call),
      "opcode 140 is not allowed");
  EXPECT_EQ(complaint("(S'a'\niposix\nsystem\n"), "opcode 83 is not allowed");
  EXPECT_EQ(
      complaint("ctorch\nFloatStorage\n" + call),
      "not allowed: a call of torch.FloatStorage");
  EXPECT_EQ(
      complaint("ccollections\nOrderedDict\n]\x85R"s),
      "not allowed: a call of collections.OrderedDict");
  EXPECT_EQ(complaint("K\x01)R"), "a call of what is no function");
}

// Not run and not written again; what runs programs is refused all the same.
TEST(Pickle, UnknownNamesAreOnlyNames) {
  const auto name_of = [](const std::string& body) {
    return unknown_in(read("\x80\x02"s + body + "."));
  };
  const std::string call = text("touch /tmp/pwned") + "\x85R"s;
  EXPECT_EQ(name_of("cmine\nrun\n"), "mine.run");
  EXPECT_EQ(name_of("cmine\nrun\n" + call), "mine.run");
  EXPECT_EQ(name_of("cmine\nrun\n" + call + call), "mine.run");
  EXPECT_EQ(name_of("cmine\nRow\n)\x81]q\x00"s + "b(NNeNNs"), "mine.Row");
  // A class in a class, which protocol 2 spells as getattr(Outer, "Inner").
  const std::string inner =
      "c__builtin__\ngetattr\ncmine\nOuter\n" + text("Inner") + "\x86R"s;
  EXPECT_EQ(name_of(inner + call), "mine.Outer");
  EXPECT_EQ(
      complaint("c__builtin__\ngetattr\n"), "not allowed: __builtin__.getattr");
  EXPECT_EQ(
      complaint("c__builtin__\ngetattr\ncos\npath\n" + text("x") + "\x86R"s),
      "not allowed: os.path");
  // What is thrown away is looked through for names, too.
  EXPECT_EQ(
      complaint("cmine\nrun\ncsubprocess\nPopen\n" + call + "\x85R"s),
      "not allowed: subprocess.Popen");
  EXPECT_EQ(name_of(persistent_id()), "torch.storage.UntypedStorage");
  EXPECT_EQ(
      complaint("c_codecs\nencode\n" + text("a") + text("rot13") + "\x86R"s),
      "not allowed: a call of _codecs.encode");
  EXPECT_EQ(
      complaint("c__builtin__\ntype\n" + text("A") + ")}\x87R"s),
      "not allowed: a call of __builtin__.type");
  EXPECT_EQ(
      complaint("ccollections\ndeque\n)R(NNe" + text("a") + "Ns"),
      "an object that is a list and a dict");
  Object object{"posix.system", Object::Call::function, {"true"}};
  EXPECT_THROW(write_pickle(object), std::invalid_argument);
  object.name = "mine.run";
  EXPECT_THROW(write_pickle(object), std::invalid_argument);
}

TEST(Pickle, OtherProtocols) {
  EXPECT_THROW(read(""), base::Error);
  EXPECT_THROW(read("N."), base::Error);
  try {
    read("\x80\x04N."s);
    ADD_FAILURE();
  } catch (const base::Error& error) {
    EXPECT_STREQ(error.what(), "pickle protocol 4, only protocol 2 is read");
  }
}

TEST(Pickle, MemoMustBeDense) {
  EXPECT_EQ(complaint("Nq\x00h\x00\x86"s), "");
  EXPECT_EQ(complaint("Nq\x01"), "memo index 1 is out of order");
  EXPECT_EQ(
      complaint("Nr\xff\xff\xff\xff"), "memo index 4294967295 is out of order");
  EXPECT_EQ(complaint("h\x00"s), "memo index 0 is not set");
  EXPECT_EQ(complaint("q\x00"s), "the stack is empty");
}

TEST(Pickle, DeepNestingNeedsNoStack) {
  std::string lists(1'000'000, ']');
  EXPECT_NE(complaint(lists + std::string(999'999, 'a')), "");
  std::string tuples = ")";
  for (int i = 0; i < 1'000'000; ++i) {
    tuples += '\x85';
  }
  EXPECT_EQ(complaint(tuples), "nested more than 100 deep");
}

TEST(Pickle, SelfReference) {
  EXPECT_EQ(complaint("]q\x00h\x00"s + "a"), "a container that holds itself");
  EXPECT_EQ(
      complaint("}q\x00"s + text("k") + "h\x00"s + "s"),
      "a container that holds itself");
}

TEST(Pickle, BillionLaughs) {
  // Fifty lists, each with the previous one twice: 2^50 leaves.
  std::string bomb = "]q\x00N"s + "a";
  for (int i = 0; i < 50; ++i) {
    const char index = static_cast<char>(i);
    bomb += "]q"s + static_cast<char>(i + 1) + "(h" + index + "h" + index + "e";
  }
  EXPECT_EQ(
      complaint("]("s + bomb + "e"),
      "the tree is very much larger than its pickle");
  // A long string, shared very often.
  std::string share =
      "]("s + "X\x00\x00\x01\x00"s + std::string(65536, 'x') + "q\x00"s;
  for (int i = 0; i < 30000; ++i) {
    share += "h\x00"s;
  }
  EXPECT_EQ(
      complaint(share + "e"),
      "the strings are very much larger than their pickle");
}

TEST(Pickle, ModestSharingIsFine) {
  EXPECT_EQ(complaint("](" + text("step") + "q\x00h\x00h\x00h\x00"s + "e"), "");
}

TEST(Pickle, StackMustHold) {
  EXPECT_EQ(complaint(""), "the pickle does not end with one value");
  EXPECT_EQ(complaint("NN"), "the pickle does not end with one value");
  EXPECT_EQ(complaint("N("), "the pickle does not end with one value");
  EXPECT_EQ(complaint("N.N"), "the pickle does not end with one value");
  EXPECT_EQ(complaint("t"), "no mark");
  EXPECT_EQ(complaint("N(\x86t"s), "the stack is empty");
  EXPECT_EQ(complaint("a"), "the stack is empty");
  EXPECT_EQ(complaint("(Na"), "the stack is empty");
  EXPECT_EQ(complaint("NNa"), "items for what is not a container of that kind");
  EXPECT_EQ(
      complaint("}(Nu"), "items for what is not a container of that kind");
  EXPECT_EQ(complaint("K"), "the pickle ends in the middle");
}

TEST(Pickle, Leaves) {
  EXPECT_EQ(
      complaint("X\xff\xff\xff\xff"s + "a"), "the pickle ends in the middle");
  EXPECT_EQ(complaint(text("\xed\xa0\x80")), "a string is not valid UTF-8");
  EXPECT_EQ(complaint(text("\xc0\x80")), "a string is not valid UTF-8");
  EXPECT_EQ(complaint("\x8a\x00"s), "");
  EXPECT_EQ(
      complaint("c" + std::string(1000, 'x') + "\n\n"),
      "a name is longer than 200");
}

TEST(Pickle, Keys) {
  EXPECT_EQ(complaint("}]Ns"), "a list of 0 items cannot be a dict's key");
  EXPECT_EQ(
      complaint("}(K\x01NK\x02NK\x01Nu"s),
      "a dict has the key the integer 1 twice");
  EXPECT_EQ(complaint("}(K\x01N\x88Nu"s), "a dict has the key True twice");
}

TEST(Pickle, Tensors) {
  EXPECT_EQ(
      complaint(tensor("K\x00"s, "K\x04K\x04\x86", "K\x04K\x01\x86")), "");
  EXPECT_EQ(complaint(tensor("K\x0f"s, ")", ")")), "");
  EXPECT_EQ(complaint(tensor("K\x00"s, "K\x00\x85"s, "K\x01\x85")), "");
  // Past the end, by sizes, by strides, by the offset.
  EXPECT_EQ(
      complaint(tensor("K\x00"s, "K\x11\x85", "K\x01\x85")),
      "float32[17] at offset 0 needs 68 bytes of a storage of 64");
  EXPECT_EQ(
      complaint(tensor("K\x00"s, "K\x02K\x04\x86", "K\x0dK\x01\x86")),
      "float32[2, 4] at offset 0 needs 68 bytes of a storage of 64");
  EXPECT_EQ(
      complaint(tensor("K\x10", ")", ")")),
      "float32[] at offset 16 needs 68 bytes of a storage of 64");
  const std::string minus_one = "J\xff\xff\xff\xff";
  EXPECT_NE(complaint(tensor(minus_one, ")", ")")), "");
  EXPECT_NE(complaint(tensor("K\x00"s, minus_one + "\x85", "K\x01\x85")), "");
  EXPECT_NE(complaint(tensor("K\x00"s, "K\x01\x85", minus_one + "\x85")), "");
  // 2^62 * 4 elements; also with strides of 0, where the extent is 1.
  const std::string huge = "\x8a\x08"s + std::string(7, '\0') + "\x40";
  for (const std::string& stride : {"K\x01"s, "K\x00"s, huge}) {
    EXPECT_EQ(
        complaint(
            tensor("K\x00"s, huge + "K\x04\x86", stride + stride + "\x86")),
        "the element count of float32[4611686018427387904, 4] overflows");
  }
  EXPECT_NE(complaint(tensor("K\x00"s, "K\x01\x85", ")")), "");
  EXPECT_NE(complaint(tensor("K\x00"s, "]", "]")), "");
}

TEST(Pickle, Storages) {
  EXPECT_EQ(
      complaint(persistent_id("K\x11")),
      "storage 0 of 17 float32 has 64 bytes in the file");
  EXPECT_EQ(
      complaint(persistent_id("J\xff\xff\xff\xff")),
      "storage 0 of -1 float32 has 64 bytes in the file");
  EXPECT_EQ(
      complaint(
          "(" + text("storage") + kFloatStorage + text("../x") + text("cpu") +
          "K\x10tQ"),
      "'../x' is no storage key");
  EXPECT_EQ(
      complaint(
          "(" + text("module") + kFloatStorage + text("0") + text("cpu") +
          "K\x10tQ"),
      "a persistent id that names no storage");
}

TEST(Pickle, RecordsStayInert) {
  const std::string scaler =
      "cdeepspeed.runtime.fp16.loss_scaler\nLossScaler\n)\x81}"s +
      text("cur_scale") + "K\x01s";
  const Value value = read("\x80\x02"s + scaler + "b.");
  ASSERT_NE(value.object(), nullptr);
  EXPECT_EQ(
      value.object()->name, "deepspeed.runtime.fp16.loss_scaler.LossScaler");
  EXPECT_EQ(value.object()->call, Object::Call::constructor);
  EXPECT_EQ(*value.object()->state.find("cur_scale")->get_if<int64_t>(), 1);
  EXPECT_EQ(dump(read(write_pickle(value).bytes)).dump(), dump(value).dump());
  EXPECT_EQ(complaint(scaler + "b}b"), "a state is set twice");
  EXPECT_EQ(complaint("}}b"), "a state for what has none");
}

} // namespace
} // namespace deepspeed::formats
