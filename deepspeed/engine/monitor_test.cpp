// The curves of tensorboard and csv_monitor, and what an engine prints.
#include "deepspeed/engine/monitor.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "deepspeed/engine/test_steps.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string monitors(const std::string& folder) {
  const std::string block =
      R"({"enabled": true, "output_path": ")" + folder + R"("})";
  return ", \"csv_monitor\": " + block + ", \"tensorboard\": " + block;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    names.push_back(item.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Monitor, CsvIsAsDeepSpeedsMonitorWritesIt) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    RunPlan plan{.stage = 1, .accumulation = 2};
    plan.optimizer = R"({"type": "Adam", "params": {"lr": 0.0625}})";
    plan.more = monitors(folder.path());
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    const double loss = (loss_of(*module, 0).item<double>() +
                         loss_of(*module, 2).item<double>()) /
        2;
    train_step(engine, *module, 0);
    const double norm = engine.get_global_grad_norm();
    train_step(engine, *module, 1);
    if (ranks->rank() == 0) {
      const std::string job = folder.path() + "/DeepSpeedJobName";
      EXPECT_EQ(
          text_of(job + "/Train_Samples_lr.csv"),
          "step,lr\r\n16,0.0625\r\n32,0.0625\r\n");
      const auto value = [&](const std::string& name) {
        const std::string text = text_of(job + "/Train_Samples_" + name);
        return std::stod(text.substr(text.find("\n16,") + 4));
      };
      EXPECT_EQ(value("train_loss.csv"), loss);
      EXPECT_EQ(value("grad_norm.csv"), norm);
      const auto names = names_in(job);
      ASSERT_EQ(names.size(), 4u) << "rank 0 only, no fp16, no clocks";
      EXPECT_THAT(names[3], testing::StartsWith("events.out.tfevents."));
      EXPECT_THAT(
          text_of(job + "/" + names[3]),
          testing::HasSubstr("Train/Samples/grad_norm"));
    }
    ranks->barrier();
  });
}

TEST(Monitor, LossScaleAndTimes) {
  const file::TemporaryFolder folder;
  on_ranks(1, [&](const auto& ranks) {
    RunPlan plan{.stage = 1, .dtype = "fp16"};
    plan.more = monitors(folder.path()) +
        R"(, "wall_clock_breakdown": true, "memory_breakdown": true,
            "steps_per_print": 2)";
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    testing::internal::CaptureStderr();
    train_step(engine, *module, 0);
    const std::string first = testing::internal::GetCapturedStderr();
    EXPECT_THAT(first, testing::HasSubstr("memory of rank 0: resident "));
    EXPECT_THAT(first, testing::HasSubstr("| step_microstep: "));
    EXPECT_THAT(first, testing::HasSubstr("| optimizer_allgather: "));
    EXPECT_THAT(first, testing::HasSubstr("hidden behind backward"));
    EXPECT_THAT(first, testing::Not(testing::HasSubstr("step=")));
    testing::internal::CaptureStderr();
    train_step(engine, *module, 1);
    EXPECT_THAT(
        testing::internal::GetCapturedStderr(),
        testing::HasSubstr("step=2, skipped=0, lr=[0.01], mom=[(0.9, 0.999)]"));
    const std::string job = folder.path() + "/DeepSpeedJobName/";
    EXPECT_EQ(
        text_of(job + "Train_Samples_loss_scale.csv"),
        "step,loss_scale\r\n4,256\r\n8,256\r\n");
    for (const std::string name :
         {"forward",
          "backward",
          "backward_inner",
          "backward_allreduce",
          "step"}) {
      EXPECT_THAT(
          text_of(job + "Train_Samples_elapsed_time_ms_" + name + ".csv"),
          testing::StartsWith("step,elapsed_time_ms_" + name + "\r\n4,"));
    }
  });
}

TEST(Monitor, AFileThatIsThereIsContinued) {
  const file::TemporaryFolder folder;
  const config::Monitor csv{true, folder.path(), "job"};
  for (int64_t run = 1; run <= 2; ++run) {
    Monitor monitor({}, csv);
    monitor.add("Train/Samples/lr", 0.5, run);
  }
  EXPECT_EQ(
      text_of(folder.path() + "/job/Train_Samples_lr.csv"),
      "step,lr\r\n1,0.5\r\n2,0.5\r\n");
}

// The records START, as EventFile's test decodes them: "\x10" SAMPLES, then
// session_log.
bool drops_after(const std::string& path, char samples) {
  const std::string record{'\x10', samples, '\x3a', '\x02', '\x08', '\x01'};
  return text_of(path).find(record) != std::string::npos;
}

TEST(Monitor, AResumeDropsWhatWasCutOff) {
  const file::TemporaryFolder folder;
  on_ranks(1, [&](const auto& ranks) {
    RunPlan plan;
    plan.more = monitors(folder.path());
    const std::string job = folder.path() + "/DeepSpeedJobName";
    const auto newest_events = [&] { return job + "/" + names_in(job).back(); };
    const auto run = [&](bool load, int64_t first, int64_t last) {
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      if (load) {
        engine.load_checkpoint(folder.path());
      }
      for (int64_t step = first; step <= last; ++step) {
        train_step(engine, *module, step);
        if (step == 2) {
          engine.save_checkpoint(folder.path());
        }
      }
      return newest_events();
    };
    EXPECT_FALSE(drops_after(run(false, 1, 1), 1)) << "a new folder";
    EXPECT_TRUE(drops_after(run(false, 1, 3), 1)) << "cut off before a save";
    const std::string resumed = run(true, 3, 4);
    EXPECT_TRUE(drops_after(resumed, 9)) << "8 samples are in the checkpoint";
    EXPECT_FALSE(drops_after(resumed, 1)) << "what came before stays";
  });
}

TEST(Monitor, AFolderThatCannotBeMadeStopsAllRanks) {
  const file::TemporaryFolder folder;
  std::ofstream(folder.path() + "/file") << "x";
  on_ranks(2, [&](const auto& ranks) {
    RunPlan plan;
    plan.more = monitors(folder.path() + "/file");
    EXPECT_THAT(
        comm::error_of(
            [&] { make_engine(std::make_shared<SmallModule>(), ranks, plan); }),
        testing::AllOf(
            testing::StartsWith("73 "),
            testing::HasSubstr("cannot make the folder")));
  });
}

} // namespace
} // namespace deepspeed
