// Is this machine fit for training?
#include "deepspeed/machine/machine_check.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "deepspeed/base/json.h"
#include "deepspeed/base/version.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::machine {
namespace {

using Status = Check::Status;

TEST(MachineCheck, NamesEachPartOnce) {
  const std::vector<Check> checks = check_machine(".");
  std::string names;
  for (const Check& check : checks) {
    names += check.name + ";";
    EXPECT_FALSE(check.value.empty()) << check.name;
    EXPECT_EQ(check.hint.empty(), check.status == Status::ok) << check.name;
  }
  EXPECT_EQ(
      names,
      "deepspeed.cpp;Compiler;Host;Processor;Cores;Instruction sets;"
      "Memory;Disk;Open files;");
  EXPECT_EQ(checks[0].value, base::kVersion);
}

TEST(MachineCheck, ReadsTheVersionOfLibtorch) {
  const file::TemporaryFolder folder;
  const std::string wheel = folder.path() + "/torch";
  std::filesystem::create_directory(wheel);
  EXPECT_EQ(check_libtorch({wheel}).status, Status::warn);
  file::write_file_atomically(
      wheel + "/version.py",
      "from typing import Optional\n__all__ = ['__version__']\n"
      "__version__ = '2.15.0+cpu'\ndebug = False\n");
  const Check check = check_libtorch({folder.path(), wheel});
  EXPECT_EQ(check.value, "2.15.0+cpu in " + wheel);
  EXPECT_EQ(check.status, Status::ok);
  file::write_file_atomically(folder.path() + "/build-version", "2.14.0\n");
  EXPECT_EQ(
      check_libtorch({folder.path(), wheel}).value,
      "2.14.0 in " + folder.path());
}

TEST(MachineCheck, TextAndJson) {
  const std::vector<Check> good{{"Cores", "2"}, {"Disk", "a\xff"}};
  const std::vector<Check> bad{
      {"Cores", "2"}, {"Disk", "1 B", Status::fail, "make room"}};
  EXPECT_TRUE(all_good(good));
  EXPECT_FALSE(all_good(bad));
  EXPECT_EQ(
      checks_text(bad),
      "OK    Cores  2\nFAIL  Disk   1 B\n             hint: make room\n");
  const base::Json list = base::parse_json(checks_json(bad), "");
  EXPECT_EQ(list[1]["status"], "fail");
  EXPECT_EQ(list[1]["hint"], "make room");
  EXPECT_EQ(
      base::parse_json(checks_json(good), "")[1]["value"], "a\xef\xbf\xbd");
}

} // namespace
} // namespace deepspeed::machine
