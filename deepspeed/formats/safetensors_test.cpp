// safetensors files come back, and the audit rules hold.
#include "deepspeed/formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::formats {
namespace {

constexpr uint64_t kMaxBytes = 1 << 24;

// A file of this header, declared to be `length` bytes, and data.
std::string make(
    const std::string& header,
    const std::string& data,
    std::optional<uint64_t> length = std::nullopt) {
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>(length.value_or(header.size()) >> (8 * i));
  }
  return file + header + data;
}

Safetensors parse(const std::string& file) {
  return parse_safetensors(
      std::as_bytes(std::span(file.data(), file.size())), nullptr, "a");
}

std::string complaint(const std::string& file) {
  try {
    parse(file);
    return "";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    return error.what();
  }
}

std::string tensor(
    const std::string& dtype,
    const std::string& shape,
    const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":[)" + shape +
      R"(],"data_offsets":[)" + offsets + "]}";
}

TEST(Safetensors, RoundTrip) {
  const float floats[6] = {1, 2, 3, 4, 5, 6};
  const int64_t integer = -7;
  Tensor transposed = Tensor::borrow(DType::float32, {2, 3}, floats);
  transposed.sizes = {3, 2};
  transposed.strides = {1, 3};
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/model.safetensors";
  save_safetensors(
      path,
      {{"half", Tensor::borrow(DType::bfloat16, {3}, floats)},
       {"b.weight", Tensor::borrow(DType::float32, {2, 3}, floats)},
       {"a \"quoted\" 雪", transposed},
       {"scalar", Tensor::borrow(DType::int64, {}, &integer)},
       {"empty", Tensor::borrow(DType::float32, {0, 4}, nullptr)}});

  const Safetensors file = load_safetensors(path);
  ASSERT_EQ(file.tensors.size(), 5u);
  // Larger elements first, else as given.
  EXPECT_EQ(file.tensors[0].name, "scalar");
  EXPECT_EQ(file.tensors[1].name, "b.weight");
  EXPECT_EQ(file.tensors[2].name, "a \"quoted\" 雪");
  EXPECT_EQ(file.tensors[3].name, "empty");
  EXPECT_EQ(file.tensors[4].name, "half");
  ASSERT_EQ(file.metadata.size(), 1u);
  EXPECT_EQ(file.metadata[0].first, "format");
  EXPECT_EQ(file.metadata[0].second, "pt");
  EXPECT_EQ(file.find("scalar")->numel(), 1);
  EXPECT_EQ(file.find("empty")->numel(), 0);
  EXPECT_EQ(file.find("nothing"), nullptr);
  float gathered[6];
  std::memcpy(gathered, file.tensors[2].tensor.contiguous_bytes().data(), 24);
  EXPECT_EQ(
      std::vector<float>(gathered, gathered + 6),
      (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(
      std::memcmp(file.find("half")->contiguous_bytes().data(), floats, 6), 0);
}

TEST(Safetensors, DataIsAligned) {
  const int64_t values[2] = {};
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  for (const std::string name : {"x", "xy", "xyz", "xyza", "xyzab"}) {
    save_safetensors(
        path,
        {{"s", Tensor::borrow(DType::int8, {3}, values)},
         {name, Tensor::borrow(DType::int64, {2}, values)}});
    const std::string file = file::read_file(path, kMaxBytes);
    EXPECT_EQ((file.size() - 19) % 8, 0u);
    EXPECT_EQ(parse(file).tensors[0].name, name);
  }
}

TEST(Safetensors, WriterRefusesNames) {
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/a";
  const Tensor tensor = Tensor::borrow(DType::int8, {1}, "x");
  EXPECT_THROW(
      save_safetensors(path, {{"a", tensor}, {"a", tensor}}),
      std::invalid_argument);
  EXPECT_THROW(
      save_safetensors(path, {{"__metadata__", tensor}}),
      std::invalid_argument);
  EXPECT_THROW(load_safetensors(path), base::Error);
}

TEST(Safetensors, HeaderLength) {
  EXPECT_EQ(complaint(make("{}", "")), "");
  EXPECT_EQ(complaint(make("{}   ", "")), "");
  EXPECT_EQ(
      complaint("1234567"),
      "the file has 7 bytes, less than the length of its header");
  EXPECT_EQ(
      complaint(make("{}", "", 3)),
      "the header claims 3 bytes of a file of 10");
  EXPECT_EQ(
      complaint(make("{}", "", UINT64_MAX)),
      "the header claims 18446744073709551615 bytes of a file of 10");
  EXPECT_EQ(complaint(make(" {}", "")), "the header does not start with '{'");
  EXPECT_EQ(complaint(make("", "")), "the header does not start with '{'");
}

TEST(Safetensors, HeaderLimitIsTheFormats) {
  std::string header = "{}";
  header.resize(100'000'001, ' ');
  EXPECT_NE(complaint(make(header, "")), "");
  header.resize(100'000'000);
  EXPECT_EQ(complaint(make(header, "")), "");
}

TEST(Safetensors, StrictJson) {
  EXPECT_EQ(complaint(make("{", "")), "not valid JSON at byte 2");
  for (const char* header :
       {"{}x",
        "{,}",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":[]}",
        "{\"a\":{}}",
        "{/**/}",
        "{\"__metadata__\":{\"a\":1}}",
        "{\"__metadata__\":[]}",
        "{\"\xff\":1}",
        "{\"a\":{\"dtype\":{}}}"}) {
    EXPECT_NE(complaint(make(header, "")), "") << header;
  }
  std::string deep = "{\"a\":";
  deep.append(1'000'000, '[');
  EXPECT_NE(complaint(make(deep, "")), "");
}

TEST(Safetensors, DuplicateKeys) {
  const std::string one = tensor("I8", "1", "0,1");
  EXPECT_EQ(complaint(make("{\"a\":" + one + "}", "x")), "");
  EXPECT_EQ(
      complaint(make("{\"a\":" + one + ",\"a\":" + one + "}", "x")),
      "duplicate key \"a\"");
  EXPECT_EQ(
      complaint(make(
          R"({"a":{"dtype":"I8","shape":[1],"shape":[1],"data_offsets":[0,1]}})",
          "x")),
      "the key \"shape\" is unknown or stands twice");
  EXPECT_EQ(
      complaint(make(R"({"__metadata__":{"k":"1","k":"2"}})", "")),
      "duplicate key \"k\"");
}

TEST(Safetensors, EveryFieldIsNeeded) {
  for (const char* body :
       {R"("shape":[1],"data_offsets":[0,1])",
        R"("dtype":"I8","data_offsets":[0,1])",
        R"("dtype":"I8","shape":[1])",
        R"("dtype":"I8","shape":[1],"data_offsets":[0])"}) {
    EXPECT_EQ(
        complaint(make(std::string("{\"a\":{") + body + "}}", "x")),
        "a tensor needs a dtype, a shape and two offsets")
        << body;
  }
  EXPECT_NE(
      complaint(make(
          R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1,2]}})", "x")),
      "");
}

TEST(Safetensors, ShapesAndOffsetsAgree) {
  const auto with = [](const std::string& t, size_t bytes) {
    return complaint(make("{\"a\":" + t + "}", std::string(bytes, 'x')));
  };
  EXPECT_EQ(with(tensor("F32", "2,3", "0,24"), 24), "");
  EXPECT_EQ(
      with(tensor("F64", "2,3", "0,24"), 24),
      "float64[2, 3] does not take the bytes 0 to 24");
  EXPECT_NE(with(tensor("F32", "2,3", "24,0"), 24), "");
  EXPECT_NE(with(tensor("F32", "2,-3", "0,24"), 24), "");
  EXPECT_NE(with(tensor("F32", "2.0,3", "0,24"), 24), "");
  EXPECT_EQ(with(tensor("F5", "1", "0,1"), 1), "the dtype \"F5\" is not known");
  // 2^32 * 2^32 * 4 is 0 in 64 bits.
  EXPECT_NE(with(tensor("F32", "4294967296,4294967296", "0,0"), 0), "");
  EXPECT_NE(with(tensor("F32", "18446744073709551615", "0,0"), 0), "");
  EXPECT_EQ(with(tensor("F32", "0,4294967296", "0,0"), 0), "");
}

TEST(Safetensors, NoGapNoOverlapNoRest) {
  const auto two =
      [](const std::string& a, const std::string& b, size_t bytes) {
        return complaint(make(
            "{\"a\":" + tensor("I8", "4", a) +
                ",\"b\":" + tensor("I8", "4", b) + "}",
            std::string(bytes, 'x')));
      };
  EXPECT_EQ(two("0,4", "4,8", 8), "");
  EXPECT_EQ(two("4,8", "0,4", 8), "");
  EXPECT_EQ(
      two("0,4", "3,7", 8),
      "the tensors leave a gap or overlap before 'b': it begins at 3, not at "
      "4");
  EXPECT_NE(two("0,4", "5,9", 9), "");
  EXPECT_NE(two("1,5", "5,9", 9), "");
  EXPECT_NE(two("0,4", "0,4", 4), "");
  EXPECT_EQ(
      two("0,4", "4,8", 9),
      "the tensors take 8 bytes, but 9 follow the header");
  EXPECT_NE(two("0,4", "4,8", 7), "");
}

} // namespace
} // namespace deepspeed::formats
