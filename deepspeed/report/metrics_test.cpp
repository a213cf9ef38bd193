// metrics.jsonl: appending, resuming and reading.
#include "deepspeed/report/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::report {
namespace {

class MetricsTest : public testing::Test {
 protected:
  std::string text() const {
    return file::read_file(path, 1 << 20);
  }
  void write(const std::string& content) const {
    file::write_file_atomically(path, content);
  }

  file::TemporaryFolder folder;
  std::string path = folder.path() + "/metrics.jsonl";
};

std::string line(int64_t step) {
  return "{\"step\":" + std::to_string(step) + ",\"loss\":6.5}\n";
}

TEST_F(MetricsTest, WritesOneObjectPerLine) {
  MetricsFile file(path, 0);
  file.append({10, {{"loss", 6.5}, {"lr", 1e-5}, {"odd \"name\"", 2}}});
  EXPECT_EQ(
      text(),
      "{\"step\":10,\"loss\":6.5,\"lr\":1e-05,\"odd \\\"name\\\"\":2.0}\n");
}

TEST_F(MetricsTest, ALinkIsNotWrittenThrough) {
  write("not a line of metrics\n");
  const std::string link = folder.path() + "/link";
  std::filesystem::create_symlink(path, link);
  EXPECT_THROW(MetricsFile(link, 0), base::Error);
  EXPECT_EQ(text(), "not a line of metrics\n");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
}

TEST_F(MetricsTest, NotANumberIsNull) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  {
    MetricsFile file(path, 0);
    file.append({1, {{"loss", nan}, {"grad_norm", -inf}}});
  }
  EXPECT_EQ(text(), "{\"step\":1,\"loss\":null,\"grad_norm\":null}\n");
  const auto records = read_metrics(path);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_TRUE(std::isnan(records[0].value("loss")));
  EXPECT_TRUE(std::isnan(records[0].value("not there")));
}

TEST_F(MetricsTest, ResumeDropsWhatCameAfterTheCheckpoint) {
  write(line(10) + line(20) + line(30) + line(40));
  {
    MetricsFile file(path, 25);
    EXPECT_EQ(text(), line(10) + line(20));
    file.append({30, {{"loss", 1.0}}});
  }
  EXPECT_EQ(text(), line(10) + line(20) + "{\"step\":30,\"loss\":1.0}\n");
}

TEST_F(MetricsTest, ResumeKeepsTheLineOfTheCheckpoint) {
  write(line(10) + line(20));
  const MetricsFile file(path, 20);
  EXPECT_EQ(text(), line(10) + line(20));
}

TEST_F(MetricsTest, ATornLastLineIsNoProblem) {
  write(line(10) + "{\"step\":20,\"lo");
  EXPECT_EQ(read_metrics(path).size(), 1u);
  MetricsFile file(path, 100);
  file.append({30, {}});
  EXPECT_EQ(text(), line(10) + "{\"step\":30}\n");
}

TEST_F(MetricsTest, DamagedLinesAreNamedAndDroppedOnResume) {
  write(line(10) + "garbage\n" + line(20));
  try {
    read_metrics(path);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data);
    EXPECT_NE(error.where().find("metrics.jsonl:2"), std::string::npos);
  }
  const MetricsFile file(path, 100);
  EXPECT_EQ(text(), line(10) + line(20));
}

TEST_F(MetricsTest, OtherJsonIsNotARecord) {
  for (const char* other :
       {"[1]\n",
        "{}\n",
        "{\"step\":1.5}\n",
        "{\"step\":1,\"a\":\"x\"}\n",
        "{\"step\":99999999999999999999}\n"}) {
    write(other);
    EXPECT_THROW(read_metrics(path), base::Error) << other;
  }
}

TEST_F(MetricsTest, ErrorsHaveThePath) {
  EXPECT_THROW(read_metrics(path), base::Error);
  try {
    MetricsFile(folder.path() + "/none/metrics.jsonl", 0);
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::cannot_create);
  }
}

} // namespace
} // namespace deepspeed::report
