// Paths win, names are looked up in order, and a miss lists all places.
#include "deepspeed/text/data_lookup.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/text/test_files.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

// Works in a folder of its own; the environment is put back afterwards.
class DataLookup : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* value = std::getenv("DEEPSPEED_DATA_DIR");
    if (value != nullptr) {
      before_ = value;
    }
    ::unsetenv("DEEPSPEED_DATA_DIR");
    fs::current_path(folder_.path());
  }
  void TearDown() override {
    fs::current_path(working_folder_);
    if (before_) {
      ::setenv("DEEPSPEED_DATA_DIR", before_->c_str(), 1);
    } else {
      ::unsetenv("DEEPSPEED_DATA_DIR");
    }
  }

  file::TemporaryFolder folder_;
  fs::path working_folder_ = fs::current_path();
  std::optional<std::string> before_;
};

TEST_F(DataLookup, LooksInTheFoldersInOrder) {
  const std::string name = "ds-lookup-test";
  const fs::path beside =
      fs::read_symlink("/proc/self/exe").parent_path() / "data" / name;
  fs::create_directories(beside);
  EXPECT_EQ(find_dataset(name, ""), beside.string());
  fs::create_directories("data/" + name);
  EXPECT_EQ(find_dataset(name, ""), "./data/" + name);
  fs::create_directories("variable/" + name);
  ::setenv("DEEPSPEED_DATA_DIR", "variable", 1);
  EXPECT_EQ(find_tokenizer(name, ""), "variable/" + name);
  fs::create_directories("flag/" + name);
  EXPECT_EQ(find_tokenizer(name, "flag"), "flag/" + name);
  fs::create_directories(name);
  EXPECT_EQ(find_dataset(name, "flag"), name);
  fs::remove_all(beside);
  fs::remove(beside.parent_path()); // if it was made here
}

TEST_F(DataLookup, FindsTheDataOfACheckoutFromBuildBin) {
  const std::string name = "ds-lookup-test-3";
  const fs::path executable = fs::read_symlink("/proc/self/exe").parent_path();
  const fs::path root = executable.parent_path().parent_path();
  try {
    find_dataset(name, "");
    ADD_FAILURE();
  } catch (const Error& error) {
    const size_t near =
        error.where().find((executable / "data" / name).string());
    const size_t far = error.where().find((root / "data" / name).string());
    EXPECT_NE(near, std::string::npos);
    EXPECT_NE(far, std::string::npos);
    EXPECT_LT(near, far);
  }
}

TEST_F(DataLookup, AMissListsThePlacesAndWhatToType) {
  ::setenv("DEEPSPEED_DATA_DIR", "/variable", 1);
  try {
    find_tokenizer("nowhere", "/flag");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::no_input);
    EXPECT_STREQ(error.what(), "no tokenizer \"nowhere\"");
    for (const char* place :
         {"looked at nowhere, ",
          "/flag/nowhere",
          "/variable/nowhere",
          "./data/nowhere"}) {
      EXPECT_NE(error.where().find(place), std::string::npos) << place;
    }
    EXPECT_NE(error.hint().find("make data"), std::string::npos);
    EXPECT_NE(error.hint().find("--tokenizer"), std::string::npos);
  }
  // A whole path is looked at as it is.
  try {
    find_dataset("/no/where", "/flag");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), "looked at /no/where");
  }
  EXPECT_THROW(find_dataset("", ""), Error);
}

} // namespace
} // namespace deepspeed::text
