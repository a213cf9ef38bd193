// Which files of a folder are read, and for what.
#include "deepspeed/text/source_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/text/test_files.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;
using Names = std::vector<std::string>;

class SourceFiles : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const {
    return folder_.path() + "/" + name;
  }
  void write(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      fs::create_directories(fs::path(path(name)).parent_path());
      const Compression compression = compression_of(name);
      write_test_file(
          path(name),
          compression == Compression::gzip       ? gzip("x")
              : compression == Compression::zstd ? zstd("x")
                                                 : "x");
    }
  }
  static Names names(const Source& source) {
    Names names;
    for (const SourceFile& file : source.files) {
      names.push_back(file.name);
    }
    return names;
  }
  Dataset dataset() const {
    return dataset_at(folder_.path());
  }
  // "NAME (REASON)"
  Names left_out() const {
    Names names;
    for (const LeftOut& left : dataset().left_out) {
      names.push_back(left.name + " (" + left.reason + ")");
    }
    return names;
  }

  file::TemporaryFolder folder_;
};

void expect_error(
    const std::function<void()>& action,
    ExitCode code,
    const std::string& where) {
  try {
    action();
    ADD_FAILURE() << "no error for " << where;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(error.where().find(where), std::string::npos) << error.where();
  }
}

TEST_F(SourceFiles, AreTheTextFilesOfAFolder) {
  fs::create_directories(path("folder.txt"));
  write(
      {"b.txt",
       "a.TXT.gz",
       "c.jsonl",
       "d.jsonl.zst",
       "d.ndjson",
       "readme.md",
       "e.csv",
       "f.json",
       ".hidden.txt",
       ".git/x.txt",
       "sub/deep/z.txt",
       "sub/a.txt.zst"});
  const Names taken{
      "a.TXT.gz",
      "b.txt",
      "c.jsonl",
      "d.jsonl.zst",
      "d.ndjson",
      "sub/a.txt.zst",
      "sub/deep/z.txt"};
  EXPECT_EQ(names(dataset().train), taken);
  EXPECT_EQ(dataset().train.path, folder_.path());
  EXPECT_EQ(names(dataset_at(folder_.path() + "/").train), taken);
  EXPECT_EQ(names(list_source(folder_.path())), taken);
  EXPECT_EQ(
      left_out(),
      (Names{
          ".git (hidden)",
          ".hidden.txt (hidden)",
          "e.csv (beside .txt or .jsonl)",
          "f.json (beside .txt or .jsonl)",
          "readme.md (no text by its name)"}));
}

TEST_F(SourceFiles, AreJsonOrTablesWhereThereIsNoText) {
  write({"a.csv", "b.tsv"});
  EXPECT_EQ(names(dataset().train), (Names{"a.csv", "b.tsv"}));
  EXPECT_EQ(files_text(dataset().train), "1 file of CSV, 1 file of TSV");
  EXPECT_TRUE(has_columns(dataset().train));
  write({"c.json", "dataset_info.json"});
  EXPECT_EQ(names(dataset().train), (Names{"c.json"}));
  write({"d.txt"});
  EXPECT_EQ(names(dataset().train), (Names{"d.txt"}));
  EXPECT_FALSE(has_columns(dataset().train));
}

TEST_F(SourceFiles, MayBeAFileOfAnyName) {
  write({"wiki.train.tokens", "test.txt"});
  EXPECT_EQ(
      names(dataset_at(path("wiki.train.tokens")).train),
      (Names{"wiki.train.tokens"}));
  EXPECT_EQ(names(dataset_at(path("test.txt")).train), (Names{"test.txt"}));
}

TEST_F(SourceFiles, AreFoundBehindLinksOnce) {
  file::TemporaryFolder elsewhere;
  fs::create_directories(elsewhere.path() + "/more");
  write_test_file(elsewhere.path() + "/more/b.txt", "x");
  write({"sub/a.txt"});
  fs::create_directory_symlink(elsewhere.path(), path("link"));
  fs::create_directory_symlink(elsewhere.path() + "/more", path("again"));
  fs::create_directory_symlink(".", path("loop"));
  fs::create_directory_symlink("..", path("sub/up"));
  EXPECT_EQ(names(dataset().train), (Names{"again/b.txt", "sub/a.txt"}));
  EXPECT_EQ(
      left_out(),
      (Names{
          "link/more (a folder that is taken already)",
          "loop (a folder that is taken already)",
          "sub/up (a folder that is taken already)"}));
}

TEST_F(SourceFiles, HaveSplitsByTheirNames) {
  write(
      {"train-00000-of-00002.txt",
       "train-00001-of-00002.txt",
       "valid.txt",
       "test.txt",
       "notes.txt"});
  EXPECT_EQ(
      names(dataset().train),
      (Names{"train-00000-of-00002.txt", "train-00001-of-00002.txt"}));
  EXPECT_EQ(names(dataset().valid), (Names{"valid.txt"}));
  EXPECT_EQ(names(dataset().test), (Names{"test.txt"}));
  EXPECT_EQ(left_out(), (Names{"notes.txt (of no split)", "test.txt (test)"}));
  EXPECT_EQ(names(held_out_at(folder_.path())), (Names{"valid.txt"}));
}

TEST_F(SourceFiles, HaveSplitsByAllWordsOfDatasets) {
  for (const char* name :
       {"validation.txt",
        "val-0.txt",
        "wiki_dev.jsonl",
        "Valid.txt",
        "dev/a.txt",
        "validation/sub/a.txt",
        "my.valid2.txt"}) {
    const file::TemporaryFolder folder;
    write_test_file(folder.path() + "/a.txt", "x");
    const fs::path file = folder.path() + "/" + name;
    fs::create_directories(file.parent_path());
    write_test_file(file, "x");
    const Dataset dataset = dataset_at(folder.path());
    EXPECT_EQ(names(dataset.train), (Names{"a.txt"})) << name;
    EXPECT_EQ(names(dataset.valid), (Names{name})) << name;
  }
  write({"devices.txt", "latest.txt", "contest/valida.txt"}); // parts of words
  EXPECT_EQ(names(dataset().train).size(), 3u);
}

TEST_F(SourceFiles, HaveSplitsByFolders) {
  write({"data/train/test-cases.txt", "data/train/b.txt", "data/test/a.txt"});
  EXPECT_EQ(
      names(dataset().train),
      (Names{"data/train/b.txt", "data/train/test-cases.txt"}));
  EXPECT_EQ(names(dataset().test), (Names{"data/test/a.txt"}));
  // The folder that was asked for has no split of its own.
  EXPECT_EQ(names(dataset_at(path("data/test")).train), (Names{"a.txt"}));
}

TEST_F(SourceFiles, AFileThatIsTheSplitIsAllOfIt) {
  write({"train.jsonl.gz", "train-small.txt", "old/train.txt", "valid/a.txt"});
  EXPECT_EQ(names(dataset().train), (Names{"train.jsonl.gz"}));
  EXPECT_EQ(dataset().train.path, path("train.jsonl.gz"));
  EXPECT_EQ(names(dataset().valid), (Names{"valid/a.txt"}));
  EXPECT_EQ(
      left_out(),
      (Names{
          "old/train.txt (beside train.jsonl.gz)",
          "train-small.txt (beside train.jsonl.gz)"}));
  write({"train.txt"});
  expect_error([&] { dataset(); }, ExitCode::data, "train.txt");
}

TEST_F(SourceFiles, RefuseWhatIsNotClear) {
  write({"a.txt", "a.txt.gz"});
  expect_error([&] { dataset(); }, ExitCode::data, "a.txt.gz");
  fs::remove(path("a.txt"));
  write({"train-test.txt"});
  expect_error([&] { dataset(); }, ExitCode::data, "train-test.txt");
  fs::remove(path("train-test.txt"));
  fs::rename(path("a.txt.gz"), path("test.txt"));
  expect_error([&] { dataset(); }, ExitCode::no_input, folder_.path());
  expect_error(
      [&] { held_out_at(folder_.path()); }, ExitCode::data, folder_.path());
}

TEST_F(SourceFiles, ThatAreHeldOutDoNotTrain) {
  write({"a.txt", "b.txt"});
  fs::create_symlink("a.txt", path("c.txt"));
  Dataset all = dataset();
  evaluate_with(held_out_at(path("c.txt")), all);
  EXPECT_EQ(names(all.train), (Names{"b.txt"}));
  EXPECT_EQ(all.left_out.size(), 2u);
  expect_error(
      [&] { evaluate_with(all.train, all); }, ExitCode::config, folder_.path());
}

// Each is looked at once, and not with each of the others.
TEST_F(SourceFiles, MayBeVeryManyOfBothKinds) {
  write({"a.txt", "b.txt"});
  Dataset all = dataset_at(path("a.txt"));
  Source held_out = held_out_at(path("b.txt"));
  all.train.files.resize(3'000, all.train.files[0]);
  held_out.files.resize(3'000, held_out.files[0]);
  const auto before = std::chrono::steady_clock::now();
  evaluate_with(std::move(held_out), all);
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
  EXPECT_EQ(all.train.files.size(), 3'000u);
}

TEST_F(SourceFiles, OfTheSplitValidAreLeftOutForOthers) {
  write({"train.txt", "valid.txt", "a/more.txt"});
  Dataset all = dataset();
  evaluate_with(held_out_at(path("valid.txt")), all);
  EXPECT_EQ(names(all.valid), (Names{"valid.txt"}));
  EXPECT_EQ(all.left_out.size(), 1u) << all.left_out.back().name;
  all = dataset();
  evaluate_with(held_out_at(path("a/more.txt")), all);
  EXPECT_EQ(names(all.valid), (Names{"more.txt"}));
  ASSERT_EQ(all.left_out.size(), 2u);
  EXPECT_EQ(all.left_out[1].name, "valid.txt");
}

TEST_F(SourceFiles, ThatAreNotThereAreNamed) {
  expect_error(
      [&] { dataset_at(path("none.txt")); },
      ExitCode::no_input,
      path("none.txt"));
  write({"only.md"});
  expect_error([&] { dataset(); }, ExitCode::no_input, folder_.path());
  ASSERT_EQ(::mkfifo(path("pipe.txt").c_str(), 0600), 0);
  expect_error([&] { dataset(); }, ExitCode::no_input, path("pipe.txt"));
  fs::remove(path("pipe.txt"));
  fs::create_symlink("nothing", path("gone.txt"));
  expect_error([&] { dataset(); }, ExitCode::no_input, path("gone.txt"));
}

} // namespace
} // namespace deepspeed::text
