// Fields name their place, tensors know their bounds.
#include "deepspeed/formats/value.h"

#include <gtest/gtest.h>

#include <functional>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/field.h"
#include "deepspeed/formats/json_value.h"
#include "deepspeed/formats/utf8.h"

namespace deepspeed::formats {
namespace {

Value example() {
  Value state = make_dict();
  state.set(0, make_dict()).set("step", 3);
  Value root = make_dict();
  Value& optimizer = root.set("optimizer", make_dict());
  optimizer.set("state", state);
  optimizer.set("groups", List{Tuple{{0.9, 1}}, true, "x"});
  return root;
}

TEST(Field, WalksAndConverts) {
  const Value value = example();
  const Field root(value, "a.pt");
  EXPECT_EQ(root.at("optimizer").at("state").at(0).at("step").integer(), 3);
  const Field groups = root.at("optimizer").at("groups");
  EXPECT_EQ(groups.at(0).at(0).real(), 0.9);
  EXPECT_EQ(groups.at(0).at(1).real(), 1.0);
  EXPECT_TRUE(groups.at(1).boolean());
  EXPECT_EQ(groups.at(2).string(), "x");
  EXPECT_FALSE(root.find("model"));
  EXPECT_FALSE(root.at("optimizer").at("state").find(1));
}

TEST(Field, ComplainsWithThePlace) {
  const Value value = example();
  const Field root(value, "a.pt");
  const auto complaint = [](const std::function<void()>& read) {
    try {
      read();
      return std::string();
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::data);
      return error.where() + " | " + error.what();
    }
  };
  const Field groups = root.at("optimizer").at("groups");
  EXPECT_EQ(complaint([&] { root.at("model"); }), "a.pt | no key 'model'");
  EXPECT_EQ(
      complaint([&] { root.at("optimizer").at("state").at(1); }),
      "a.pt: ['optimizer']['state'] | no key 1");
  EXPECT_EQ(
      complaint([&] { groups.at(3); }),
      "a.pt: ['optimizer']['groups'] | no item 3 among 3");
  EXPECT_EQ(
      complaint([&] { groups.at(-1); }),
      "a.pt: ['optimizer']['groups'] | no item -1 among 3");
  EXPECT_EQ(
      complaint([&] { groups.at(2).integer(); }),
      "a.pt: ['optimizer']['groups'][2] | expected an integer, found the "
      "string 'x'");
  EXPECT_EQ(
      complaint([&] { groups.at(1).integer(); }),
      "a.pt: ['optimizer']['groups'][1] | expected an integer, found True");
  EXPECT_EQ(
      complaint([&] { groups.at(0).at(0).tensor(); }),
      "a.pt: ['optimizer']['groups'][0][0] | expected a tensor, found the "
      "number 0.900000");
  EXPECT_EQ(
      complaint([&] { groups.at(2).at("x"); }),
      "a.pt: ['optimizer']['groups'][2] | expected a dict, found the string "
      "'x'");
}

TEST(Value, SetReplacesEqualKeys) {
  Value dict = make_dict();
  dict.set(1, "a");
  dict.set(1.0, "b");
  dict.set(true, "c");
  dict.set("1", "d");
  EXPECT_EQ(dict.get_if<Dict>()->entries.size(), 2u);
  EXPECT_EQ(*dict.find(1)->get_if<std::string>(), "c");
  EXPECT_NE(key_text(Tuple{{"a", "b"}}), key_text(Tuple{{"a,b"}}));
  EXPECT_EQ(key_text(List{}), "");
  EXPECT_EQ(key_text(Tuple{List{Value(List{})}}), "");
}

// A hostile key: an object in a tuple of an object, and so on.
TEST(Value, TheTextOfAKeyIsNotMuchLargerThanTheKey) {
  Value key("x");
  for (int i = 0; i < 20; ++i) {
    key = Object{"m.C", Object::Call::function, {Tuple{{key}}}};
  }
  EXPECT_LT(key_text(key).size(), 1'000u);
}

TEST(Value, KeysThatAreObjectsDifferByTheirContents) {
  const auto text = [](const Value& argument) {
    return key_text(Object{"m.C", Object::Call::function, {argument}});
  };
  EXPECT_EQ(text(Tuple{{"a"}}), text(Tuple{{"a"}}));
  EXPECT_NE(text(Tuple{{"a"}}), text(Tuple{{"b"}}));
  EXPECT_NE(text(Tuple{{"a"}}), text(List{"a"}));
  EXPECT_NE(text(List{}), text(make_dict()));
  EXPECT_NE(text(Value()), text(Tuple{}));
}

TEST(Tensor, Contiguity) {
  const float values[12] = {};
  Tensor tensor = Tensor::borrow(DType::float32, {12}, values);
  tensor.sizes = {2, 1, 3};
  tensor.strides = {3, 3, 1};
  EXPECT_TRUE(tensor.is_contiguous());
  tensor.strides = {3, 99, 1}; // the stride of a single element is free
  EXPECT_TRUE(tensor.is_contiguous());
  tensor.strides = {4, 3, 1};
  EXPECT_FALSE(tensor.is_contiguous());
  EXPECT_EQ(tensor_fault(tensor), "");
  tensor.strides = {10, 3, 1};
  EXPECT_NE(tensor_fault(tensor), "");
  tensor.sizes = {2, 0, 3};
  tensor.storage_offset = 99; // torch allows it where there is no element
  EXPECT_TRUE(tensor.is_contiguous());
  EXPECT_TRUE(tensor.contiguous_bytes().empty());
  EXPECT_EQ(tensor_fault(tensor), "");
}

TEST(Tensor, NamesOfDtypes) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const DType dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_of_name(dtype_name(dtype)), dtype);
    EXPECT_EQ(dtype_of_storage_class(storage_class(dtype)), dtype);
    EXPECT_EQ(dtype_of_safetensors_name(safetensors_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_of_name("float"), std::nullopt);
}

TEST(Utf8, Bounds) {
  for (const char* good :
       {"",
        "a",
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xef\xbf\xbf",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad :
       {"\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2\x41",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5",
        "\xf0\x90\x80",
        "\xff"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

// As Python's: no integer becomes another one, or a float.
TEST(JsonValue, IntegersOfAllSizes) {
  const auto json = base::Json::parse(
      "{\"least\": -9223372036854775808, \"most\": 9223372036854775807, "
      "\"more\": [9223372036854775808, 18446744073709551615]}");
  const Value value = value_of_json(json);
  EXPECT_EQ(*value.find("most")->get_if<int64_t>(), INT64_MAX);
  const Value& more = value.find("more")->get_if<List>()->front();
  ASSERT_NE(more.get_if<BigInteger>(), nullptr);
  EXPECT_EQ(
      more.get_if<BigInteger>()->bytes, std::string("\0\0\0\0\0\0\0\x80\0", 9));
  EXPECT_EQ(json_of_value(value), json);
  EXPECT_THROW(
      json_of_value(Value(BigInteger{std::string(9, '\xff')})),
      std::invalid_argument);
}

} // namespace
} // namespace deepspeed::formats
