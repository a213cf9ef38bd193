// Files of real torch are read, and ours are the same byte for byte.
#include "deepspeed/file/json_file.h"
#include "deepspeed/formats/torch_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/dump.h"
#include "deepspeed/formats/field.h"
#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/zip.h"

namespace deepspeed::formats {
namespace {

constexpr uint64_t kMaxBytes = 1 << 24;

// Made by tests/golden/make_torch_golden.py.
std::string golden(const std::string& name) {
  return std::string(DS_SOURCE_DIR) + "/tests/golden/torch/" + name;
}

Value parse(const std::string& file, const TorchFileOptions& options = {}) {
  return parse_torch_file(
      std::as_bytes(std::span(file.data(), file.size())),
      nullptr,
      "a.pt",
      options);
}

// The complaint about a file, or "" if there is none.
std::string complaint(const std::string& file) {
  try {
    parse(file);
    return "";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    return error.what();
  }
}

// An archive of torch's form with these records under "a/".
std::string archive(
    const std::vector<std::pair<std::string, std::string>>& records) {
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/a.pt";
  file::AtomicFile file(path);
  ZipWriter zip(file);
  for (const auto& [name, data] : records) {
    zip.add(name, data);
  }
  zip.finish();
  file.commit();
  return file::read_file(path, kMaxBytes);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, ReadsWhatTorchWrote) {
  const std::string name = GetParam();
  const base::Json expected =
      file::read_json(golden(name + ".json"), kMaxBytes);
  const base::Json found = dump(load_torch_file(golden(name + ".pt")));
  EXPECT_TRUE(found == expected) << found.dump();
}

TEST_P(Golden, RoundTripKeepsTheTree) {
  const std::string name = GetParam();
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/" + name + ".pt";
  const Value value = load_torch_file(golden(name + ".pt"));
  save_torch_file(path, value);
  EXPECT_EQ(dump(load_torch_file(path)).dump(), dump(value).dump());
}

// The files in which no string stands twice: Python writes equal strings again
// when they are not one object, and the bytes do not tell which were.
class GoldenBytes : public testing::TestWithParam<const char*> {};

TEST_P(GoldenBytes, RoundTripGivesTheSameBytes) {
  const std::string name = GetParam();
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/" + name + ".pt";
  save_torch_file(path, load_torch_file(golden(name + ".pt")));
  std::string ours = file::read_file(path, kMaxBytes);
  std::string theirs = file::read_file(golden(name + ".pt"), kMaxBytes);
  // The last record is a hash of our own; its checksum stands twice.
  for (std::string* file : {&ours, &theirs}) {
    const ZipReader zip(
        std::as_bytes(std::span(file->data(), file->size())), path);
    const ZipEntry& id = zip.entries().back();
    const size_t at = static_cast<size_t>(
        reinterpret_cast<const char*>(id.data.data()) - file->data());
    const size_t central = file->rfind("PK\x01\x02");
    file->replace(at, id.data.size() + 8, id.data.size() + 8, '-');
    file->replace(central + 16, 4, "----");
  }
  EXPECT_TRUE(ours == theirs);
}

INSTANTIATE_TEST_SUITE_P(
    All,
    Golden,
    testing::Values(
        "two_layers",
        "views",
        "dtypes",
        "late_dtypes",
        "containers",
        "records",
        "plain"),
    [](const auto& info) { return std::string(info.param); });
INSTANTIATE_TEST_SUITE_P(
    All,
    GoldenBytes,
    testing::Values("views", "dtypes", "late_dtypes", "records"),
    [](const auto& info) { return std::string(info.param); });

TEST(TorchFile, OfClassesThatNobodyKnowsTheNamesStay) {
  const Value value = load_torch_file(golden("someone.pt"));
  EXPECT_TRUE(dump(value) == file::read_json(golden("someone.json"), kMaxBytes))
      << dump(value).dump();
  file::TemporaryFolder folder;
  EXPECT_THROW(
      save_torch_file(folder.path() + "/a.pt", value), std::invalid_argument);
  std::vector<std::string> dropped;
  const Value rest = without_unknown(value, &dropped);
  EXPECT_EQ(
      dropped,
      (std::vector<std::string>{
          "['colour'] (an object of someone.Colour)",
          "['options'] (an object of someone.Options)",
          "['rows'] (an object of someone.Rows)",
          "['table'] (an object of someone.Table)",
          "['args']['mode'] (an object of someone.Colour)",
          "['args']['modes'] (an object of someone.Colour)",
          "['by_colour'][an object someone.Colour] (an object of "
          "someone.Colour)"}));
  save_torch_file(folder.path() + "/a.pt", rest);
  const Value again = load_torch_file(folder.path() + "/a.pt");
  EXPECT_EQ(*again.find("step")->get_if<int64_t>(), 3);
  EXPECT_EQ(*again.find("args")->find("seed")->get_if<int64_t>(), 1);
  EXPECT_EQ(again.find("args")->find("mode"), nullptr);
  EXPECT_EQ(*again.find("by_colour")->find("x")->get_if<int64_t>(), 2);
}

TEST(TorchFile, BytesSeenAsTwoDtypesAreStoredTwice) {
  const float values[4] = {1, 2, 3, 4};
  Tensor real = Tensor::borrow(DType::float32, {4}, values);
  Tensor complex = real;
  complex.dtype = DType::complex64;
  complex.sizes = {2};
  Value tree = make_dict();
  tree.set("real", real);
  tree.set("complex", complex);
  tree.set("view", real);
  EXPECT_EQ(write_pickle(tree).storages.size(), 2u);
}

TEST(TorchFile, ViewsShareTheirStorage) {
  const Value value = load_torch_file(golden("views.pt"));
  const Field root(value, "views.pt");
  const Tensor& base = root.at("base").tensor();
  for (const char* name : {"row", "column", "transposed", "block"}) {
    EXPECT_EQ(root.at(name).tensor().storage, base.storage) << name;
  }
  EXPECT_TRUE(root.at("row").tensor().is_contiguous());
  EXPECT_FALSE(root.at("column").tensor().is_contiguous());
  EXPECT_THROW(root.at("block").tensor().contiguous_bytes(), base::Error);
  float block[6] = {};
  root.at("block").tensor().copy_to(reinterpret_cast<std::byte*>(block));
  EXPECT_EQ(
      std::vector<float>(block, block + 6),
      (std::vector<float>{8, 9, 10, 14, 15, 16}));
}

TEST(TorchFile, TensorsOutliveTheValue) {
  Tensor tensor;
  {
    const Value value = load_torch_file(golden("views.pt"));
    tensor = *value.find("row")->tensor();
  }
  float row[6] = {};
  std::memcpy(row, tensor.contiguous_bytes().data(), sizeof row);
  EXPECT_EQ(row[5], 17.0f);
}

TEST(TorchFile, FlippedBytesNeverChangeWhatIsRead) {
  const std::string file = file::read_file(golden("views.pt"), kMaxBytes);
  const std::string expected = dump(parse(file)).dump();
  size_t refused = 0;
  for (size_t i = 0; i < file.size(); ++i) {
    for (const char mask : {'\x01', '\x80', '\xff'}) {
      std::string flipped = file;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      try {
        EXPECT_EQ(dump(parse(flipped)).dump(), expected) << i;
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), base::ExitCode::data);
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, file.size());
}

TEST(TorchFile, EveryTruncationIsRefused) {
  const std::string file = file::read_file(golden("views.pt"), kMaxBytes);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(complaint(file.substr(0, size)), "") << size;
  }
  EXPECT_EQ(complaint(""), "the file is empty");
  EXPECT_NE(
      complaint(file.substr(0, file.size() / 2))
          .find(std::to_string(file.size() / 2) + " bytes"),
      std::string::npos);
}

TEST(TorchFile, ChecksumsCanBeSkipped) {
  std::string file = file::read_file(golden("dtypes.pt"), kMaxBytes);
  const ZipReader zip(std::as_bytes(std::span(file.data(), file.size())), "");
  const ZipEntry* entry = zip.find("dtypes/data/0");
  file[static_cast<size_t>(
      reinterpret_cast<const char*>(entry->data.data()) - file.data())] ^= 1;
  EXPECT_EQ(
      complaint(file),
      "the bytes of entry dtypes/data/0 do not match their checksum");
  TorchFileOptions trusting;
  trusting.verify_checksums = false;
  EXPECT_NO_THROW(parse(file, trusting));
}

TEST(TorchFile, OtherFormatsByName) {
  const std::string none = "\x80\x02N.";
  EXPECT_EQ(complaint(archive({{"a/data.pkl", none}})), "");
  EXPECT_EQ(
      complaint(archive({{"a/data.pkl", none}, {"a/byteorder", "big"}})),
      "written on a big-endian machine");
  EXPECT_EQ(
      complaint(archive({{"a/data.pkl", none}, {"a/constants.pkl", none}})),
      "a TorchScript archive: it holds code");
  EXPECT_EQ(
      complaint(archive({{"a/other", none}})), "no data.pkl of a sane size");
  EXPECT_EQ(
      complaint(archive({{"other", none}})),
      "an archive, but not one of torch.save");
  EXPECT_EQ(complaint(archive({})), "an archive, but not one of torch.save");
  EXPECT_EQ(
      complaint("\x80\x02\x8a\x0al\xfc\x9c"
                "F\xf9 j\xa8P\x19."),
      "torch's old file format (_use_new_zipfile_serialization=False)");
  EXPECT_EQ(complaint("hello"), "this is no file of torch.save");
  EXPECT_THROW(load_torch_file("/no/such/file.pt"), base::Error);
}

TEST(TorchFile, StorageMustBeThereAndFit) {
  std::string file = file::read_file(golden("views.pt"), kMaxBytes);
  const ZipReader zip(std::as_bytes(std::span(file.data(), file.size())), "");
  const ZipEntry* entry = zip.find("views/data.pkl");
  const std::string pickle(
      reinterpret_cast<const char*>(entry->data.data()), entry->data.size());
  EXPECT_EQ(
      complaint(archive({{"a/data.pkl", pickle}})), "entry data/0 is missing");
  EXPECT_EQ(
      complaint(archive(
          {{"a/data.pkl", pickle}, {"a/data/0", std::string(92, 'x')}})),
      "storage 0 of 24 float32 has 92 bytes in the file");
}

TEST(TorchFile, FailureLeavesTheOldFile) {
  file::TemporaryFolder folder;
  const std::string path = folder.path() + "/a.pt";
  save_torch_file(path, Value("old"));
  Tensor bad = Tensor::borrow(DType::int8, {3}, "abc");
  bad.sizes = {4};
  EXPECT_THROW(save_torch_file(path, bad), std::invalid_argument);
  EXPECT_EQ(*load_torch_file(path).get_if<std::string>(), "old");
  EXPECT_EQ(
      std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(save_torch_file("/no/such/a.pt", Value()), base::Error);
}

} // namespace
} // namespace deepspeed::formats
