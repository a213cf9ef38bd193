// A job on its way to another host arrives as it was, or not at all.
#include "deepspeed/launcher/node_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {
namespace {

using testing::HasSubstr;

NodeMessage sample() {
  NodeMessage message{.folder = "/a folder/with\nnewline"};
  NodeJob& job = message.job;
  job.nodes = {{"w0", {0, 3}}, {"w1", {7}}};
  job.node_rank = 1;
  job.master_addr = "10.0.0.1";
  job.master_port = 4321;
  job.program = {
      .script = "train.py",
      .arguments = {"", "$(id)", "a\nb", "\xff\xfe"},
      .module = true,
      .local_rank = false};
  job.environment = {"A=", "B=" + std::string(100'000, 'x')};
  job.devices = {"GPU-1"};
  job.bind_cores = true;
  job.bind_core_list = "1,2";
  job.rank_log_folder = "logs";
  job.log_level = LogLevel::warning;
  job.supervisor = {
      std::chrono::duration<double>(0.25), std::chrono::duration<double>(7)};
  job.restart_count = 3;
  job.resume_note = "runs/x";
  job.job_id = "abc";
  return message;
}

// Without the length in front.
std::string bytes_of(const NodeMessage& message) {
  const std::string text = encode_message(message);
  const size_t end = text.find('\n');
  EXPECT_EQ(std::stoul(text.substr(0, end)), text.size() - end - 1);
  return text.substr(end + 1);
}

TEST(NodeMessage, ArrivesAsItWas) {
  const NodeMessage back = decode_message(bytes_of(sample()));
  // All fields take part in the bytes.
  EXPECT_EQ(bytes_of(back), bytes_of(sample()));
  EXPECT_EQ(back.folder, sample().folder);
  EXPECT_EQ(back.job.nodes[0].slots, (std::vector<int>{0, 3}));
  EXPECT_EQ(back.job.program.arguments, sample().job.program.arguments);
  EXPECT_TRUE(back.job.program.module);
  EXPECT_FALSE(back.job.program.no_python);
  EXPECT_FALSE(back.job.program.local_rank);
  EXPECT_EQ(back.job.environment, sample().job.environment);
  EXPECT_EQ(back.job.devices, sample().job.devices);
  EXPECT_EQ(back.job.log_level, LogLevel::warning);
  EXPECT_EQ(back.job.supervisor.failure_grace.count(), 0.25);
  EXPECT_EQ(back.job.supervisor.stop_grace.count(), 7);
  EXPECT_EQ(back.job.resume_note, "runs/x");
  EXPECT_EQ(back.job.job_id, "abc");
}

TEST(NodeMessage, EveryPrefixIsRefused) {
  NodeMessage message = sample();
  message.job.environment = {"A=b"};
  const std::string bytes = bytes_of(message);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decode_message(bytes.substr(0, size)), base::Error) << size;
  }
  EXPECT_THROW(decode_message(bytes + '\0'), base::Error);
}

TEST(NodeMessage, DamageNeverCrashes) {
  const std::string bytes = bytes_of(sample()).substr(0, 400);
  for (uint32_t i = 0; i < 20000; ++i) {
    std::string damaged = bytes;
    damaged[(i * 7919) % damaged.size()] = static_cast<char>(i * 31);
    try {
      decode_message(damaged);
    } catch (const base::Error&) {
    }
  }
}

TEST(NodeMessage, RefusesWhatDoesNotFit) {
  const auto refusal = [](const std::string& bytes) -> std::string {
    try {
      decode_message(bytes);
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::data);
      return error.what();
    }
    return "accepted";
  };
  NodeMessage message = sample();
  message.job.node_rank = 2;
  EXPECT_THAT(refusal(bytes_of(message)), HasSubstr("sense"));
  message = sample();
  message.job.nodes[1].slots.clear();
  EXPECT_THAT(refusal(bytes_of(message)), HasSubstr("sense"));
  const char other[] = "9.9.9\0rest";
  EXPECT_THAT(
      refusal(std::string(other, sizeof other)), HasSubstr("version 9.9.9"));
  const std::string prefix = bytes_of({}).substr(0, 7); // version, folder
  EXPECT_THAT(
      refusal(prefix + "999999999999" + '\0'), HasSubstr("999999999999 items"));
}

} // namespace
} // namespace deepspeed::launcher
