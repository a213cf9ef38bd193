// save_checkpoint() and load_checkpoint(): their options, and what goes wrong.
#include <sys/resource.h>

#include <cstring>
#include <filesystem>

#include "deepspeed/engine/test_steps.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/formats/torch_file.h"
#include "deepspeed/formats/zip.h"

namespace deepspeed {
namespace {

using testing::HasSubstr;

// A tied name, a frozen parameter, a buffer of integers.
struct MixedModule : SmallModule {
  MixedModule() {
    alias = register_parameter("alias", tied);
    frozen = register_parameter("frozen", at::full({3}, 2.5f), false);
    number = register_buffer("number", at::full({2}, 7, at::kLong));
  }
  at::Tensor alias, frozen, number;
};

// Two groups.
Engine mixed_engine(
    const std::shared_ptr<MixedModule>& module,
    const std::shared_ptr<comm::ProcessGroup>& ranks,
    const RunPlan& plan) {
  InitializeOptions options;
  options.param_groups = {
      {{module->first, module->tied}, 0.02, {}},
      {{module->shift, module->unused, module->last}, {}, 0.1}};
  return make_engine(module, ranks, plan, options);
}

std::vector<double> values_of(Engine& engine) {
  std::vector<double> values;
  for (const auto& [name, tensor] : engine.fp32_parameters()) {
    const at::Tensor flat = tensor.contiguous().view({-1});
    for (int64_t i = 0; i < flat.numel(); ++i) {
      values.push_back(flat.data_ptr<float>()[i]);
    }
  }
  return values;
}

constexpr int kValues = 35 + 7 + 3 + 49 + 7;

TEST(Checkpoint, GroupsFrozenTiedAndBuffersOverStagesAndRanks) {
  struct Part {
    int ranks;
    int stage;
  };
  for (const std::string dtype : {"fp32", "bf16"}) {
    for (const auto& [from, to] : std::vector<std::pair<Part, Part>>{
             {{2, 2}, {1, 0}}, {{3, 1}, {2, 2}}, {{1, 0}, {3, 1}}}) {
      const file::TemporaryFolder folder;
      SharedDoubles saved(kValues);
      on_ranks(from.ranks, [&](const auto& ranks) {
        auto module = std::make_shared<MixedModule>();
        Engine engine =
            mixed_engine(module, ranks, {.stage = from.stage, .dtype = dtype});
        module->number.fill_(11);
        module->frozen.fill_(-1.5);
        train_step(engine, *module, 0);
        train_step(engine, *module, 1);
        EXPECT_EQ(
            engine.save_checkpoint(folder.path()),
            folder.path() + "/global_step2");
        const auto values = values_of(engine);
        for (int i = 0; i < kValues && ranks->rank() == 0; ++i) {
          saved[i] = values[i];
        }
      });
      on_ranks(to.ranks, [&](const auto& ranks) {
        auto module = std::make_shared<MixedModule>();
        Engine engine =
            mixed_engine(module, ranks, {.stage = to.stage, .dtype = dtype});
        const LoadedCheckpoint loaded = engine.load_checkpoint(folder.path());
        EXPECT_EQ(loaded.path, folder.path() + "/global_step2");
        EXPECT_EQ(values_of(engine), saved.all()) << dtype;
        EXPECT_EQ(module->number[0].item<int64_t>(), 11);
        EXPECT_EQ(module->frozen[0].item<float>(), -1.5f);
        EXPECT_EQ(engine.global_steps(), 2);
        EXPECT_EQ(engine.global_samples(), 2 * 4 * from.ranks);
        EXPECT_TRUE(module->alias.is_same(module->tied));
        // In the order of the groups, `tied` comes after the 35 of `first`.
        EXPECT_EQ(
            module->tied.view({-1})[0].template item<float>(),
            at::scalar_tensor(saved[35])
                .to(module->tied.scalar_type())
                .template item<float>());
      });
    }
  }
}

// Saves after two steps: tags "one" and "two".
void save_two(const std::string& folder, const RunPlan& plan) {
  on_ranks(plan.ranks, [&](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    SaveOptions options;
    for (const std::string tag : {"one", "two"}) {
      train_step(engine, *module, engine.global_steps());
      options.tag = tag;
      options.client_state.set("note", tag);
      engine.save_checkpoint(folder, options);
    }
  });
}

std::string note_of(const LoadedCheckpoint& loaded) {
  return *loaded.client_state.find("note")->get_if<std::string>();
}

// Replaces a text in the pickle of a torch file by one of the same length.
void edit_pickle(
    const std::string& path,
    const std::string& from,
    const std::string& to) {
  const std::string bytes = file::read_file(path, 1 << 24);
  const formats::ZipReader zip(
      std::as_bytes(std::span(bytes.data(), bytes.size())), path);
  file::AtomicFile file(path);
  formats::ZipWriter writer(file);
  for (const formats::ZipEntry& entry : zip.entries()) {
    std::string data(
        reinterpret_cast<const char*>(entry.data.data()), entry.data.size());
    if (const size_t at = data.find(from); at != std::string::npos) {
      data.replace(at, from.size(), to);
    }
    writer.add(std::string(entry.name), data);
  }
  writer.finish();
  file.commit();
}

TEST(Checkpoint, ValuesOfUnknownClassesAreLeftOutOfTheClientState) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    Engine engine =
        make_engine(std::make_shared<SmallModule>(), ranks, {.stage = 1});
    formats::Object object{"uuid.UUID", formats::Object::Call::function};
    SaveOptions options;
    options.client_state.set("known", object);
    object.name = "array.array";
    options.client_state.set("other", object);
    engine.save_checkpoint(folder.path(), options);
    const std::string tag = folder.path() + "/global_step0/";
    if (ranks->rank() == 0) {
      edit_pickle(
          tag + "mp_rank_00_model_states.pt", "array\narray", "their\nMode_");
      std::filesystem::remove(tag + "ds_manifest.json");
    }
    ranks->barrier();
    testing::internal::CaptureStderr();
    const LoadedCheckpoint loaded = engine.load_checkpoint(folder.path());
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(
        said.find("known here: ['other'] (an object of their.Mode_)\n") !=
            std::string::npos,
        ranks->rank() == 0)
        << said;
    EXPECT_EQ(loaded.client_state.find("other"), nullptr);
    ASSERT_NE(loaded.client_state.find("known"), nullptr);
    // The rest can be saved again.
    options.client_state = loaded.client_state;
    engine.save_checkpoint(folder.path(), options);
    EXPECT_EQ(
        engine.load_checkpoint(folder.path())
            .client_state.find("known")
            ->object()
            ->name,
        "uuid.UUID");
  });
}

const char* kWarmup =
    R"(, "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 9}})";

TEST(Checkpoint, WhatIsLoadedIsAChoice) {
  for (const int stage : {0, 1, 2}) {
    const file::TemporaryFolder folder;
    RunPlan plan{.ranks = 2, .stage = stage};
    plan.more = kWarmup;
    save_two(folder.path(), plan);
    on_ranks(2, [&](const auto& ranks) {
      const auto load = [&](const LoadOptions& options, auto check) {
        auto module = std::make_shared<SmallModule>();
        Engine engine = make_engine(module, ranks, plan);
        const std::string note =
            note_of(engine.load_checkpoint(folder.path(), options));
        check(engine, note);
        // The next update tells whether the moments are those of the file.
        train_step(engine, *module, 2);
        return values_of(engine);
      };
      const auto all = load({}, [](Engine& engine, const std::string& note) {
        EXPECT_EQ(note, "two");
        EXPECT_EQ(engine.global_steps(), 2);
        EXPECT_GT(engine.get_lr()[0], 0);
      });
      const auto fresh = load(
          {.optimizer_states = false}, [](Engine& engine, const std::string&) {
            EXPECT_EQ(engine.global_steps(), 2);
            EXPECT_GT(engine.get_lr()[0], 0);
          });
      EXPECT_NE(all, fresh);
      load({.lr_scheduler_states = false}, [](Engine& engine, const auto&) {
        EXPECT_EQ(engine.get_lr()[0], 0);
      });
      load({.module_only = true}, [](Engine& engine, const auto&) {
        EXPECT_EQ(engine.global_steps(), 0);
        EXPECT_EQ(engine.get_lr()[0], 0);
      });
      load({.tag = "one"}, [](Engine& engine, const std::string& note) {
        EXPECT_EQ(note, "one");
        EXPECT_EQ(engine.global_steps(), 1);
      });
    });
  }
}

TEST(Checkpoint, NotBetweenTheMicroBatchesOfAStep) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.accumulation = 2});
    engine.backward(loss_of(*module, 0));
    EXPECT_THROW(engine.save_checkpoint(folder.path()), std::logic_error);
    engine.step();
    EXPECT_THROW(engine.save_checkpoint(folder.path()), std::logic_error);
    engine.backward(loss_of(*module, 1));
    engine.step();
    engine.save_checkpoint(folder.path());
    // Loading forgets a step that has begun.
    engine.backward(loss_of(*module, 2));
    engine.load_checkpoint(folder.path());
    EXPECT_THROW(engine.step(), std::logic_error);
    train_step(engine, *module, 1);
    EXPECT_EQ(engine.global_steps(), 2);
  });
}

TEST(Checkpoint, KeysOfTheEngineAreNotTheUsers) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.stage = 1});
    for (const std::string key : {"module", "optimizer", "ds_config"}) {
      SaveOptions options;
      options.client_state.set(key, int64_t{1});
      const std::string error = comm::error_of(
          [&] { engine.save_checkpoint(folder.path(), options); });
      EXPECT_THAT(
          error, testing::AllOf(testing::StartsWith("64 "), HasSubstr(key)));
    }
    EXPECT_FALSE(std::filesystem::exists(folder.path() + "/latest"));
  });
}

TEST(Checkpoint, RanksWithDifferentTags) {
  for (const std::string mode : {"Ignore", "Warn", "Fail"}) {
    const file::TemporaryFolder folder;
    on_ranks(2, [&](const auto& ranks) {
      RunPlan plan{.stage = 1};
      plan.more = R"(, "checkpoint": {"tag_validation": ")" + mode + R"("})";
      auto module = std::make_shared<SmallModule>();
      Engine engine = make_engine(module, ranks, plan);
      SaveOptions options;
      options.tag = "tag" + std::to_string(ranks->rank());
      testing::internal::CaptureStderr();
      const std::string error = comm::error_of(
          [&] { engine.save_checkpoint(folder.path(), options); });
      const std::string said = testing::internal::GetCapturedStderr();
      const std::string what = "rank 1 saves the tag 'tag1', rank 0 'tag0'";
      EXPECT_EQ(error, mode == "Fail" ? "78 " + what : "");
      EXPECT_EQ(
          said.find(what) != std::string::npos,
          mode == "Warn" && ranks->rank() == 0);
      ranks->barrier();
      EXPECT_EQ(
          std::filesystem::exists(folder.path() + "/tag0"), mode != "Fail");
      EXPECT_FALSE(std::filesystem::exists(folder.path() + "/tag1"));
    });
  }
}

TEST(Checkpoint, AFolderThatCannotBeWrittenIsAnErrorOnAllRanks) {
  const file::TemporaryFolder folder;
  save_two(folder.path(), {.ranks = 2, .stage = 1});
  on_ranks(2, [&](const auto& ranks) {
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, {.stage = 1});
    engine.load_checkpoint(folder.path());
    train_step(engine, *module, 2);
    // A limit on file sizes that only rank 1 has: its shard does not fit.
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit tight{100, limit.rlim_max};
    if (ranks->rank() == 1) {
      ::setrlimit(RLIMIT_FSIZE, &tight);
    }
    const std::string error =
        comm::error_of([&] { engine.save_checkpoint(folder.path()); });
    ::setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_THAT(error, testing::StartsWith("74 "));
    if (ranks->rank() == 0) {
      EXPECT_THAT(error, HasSubstr("rank 1"));
    }
    ranks->barrier();
    EXPECT_FALSE(std::filesystem::exists(folder.path() + "/global_step3"));
    auto other = std::make_shared<SmallModule>();
    Engine resumed = make_engine(other, ranks, {.stage = 1});
    EXPECT_EQ(note_of(resumed.load_checkpoint(folder.path())), "two");
    // The engine that could not save goes on, and saves later.
    engine.save_checkpoint(folder.path());
    EXPECT_EQ(
        resumed.load_checkpoint(folder.path()).path,
        folder.path() + "/global_step3");
  });
}

// Another shape, another name.
struct WideModule : SmallModule {
  WideModule() {
    unused.set_data(at::zeros({4}));
  }
};
struct LongModule : SmallModule {
  LongModule() {
    extra = register_parameter("extra", at::ones({2}));
  }
  at::Tensor extra;
};

TEST(Checkpoint, AnotherModelOrOptimizerIsNamed) {
  const file::TemporaryFolder folder;
  save_two(folder.path(), {.ranks = 2, .stage = 1});
  on_ranks(2, [&](const auto& ranks) {
    const auto error_with = [&](std::shared_ptr<SmallModule> module,
                                const RunPlan& plan,
                                const LoadOptions& options = {}) {
      Engine engine = make_engine(module, ranks, plan);
      const auto before = values_of(engine);
      const std::string error = comm::error_of(
          [&] { engine.load_checkpoint(folder.path(), options); });
      EXPECT_EQ(error.empty(), before != values_of(engine)) << error;
      return error;
    };
    EXPECT_THAT(
        error_with(std::make_shared<WideModule>(), {.stage = 2}),
        testing::AllOf(
            testing::StartsWith("65 'unused' is"),
            HasSubstr("[3]"),
            HasSubstr("[4]")));
    EXPECT_THAT(
        error_with(std::make_shared<LongModule>(), {}),
        testing::StartsWith("65 the checkpoint has no tensor 'extra'"));
    EXPECT_EQ(
        error_with(
            std::make_shared<LongModule>(),
            {},
            {.module_strict = false, .optimizer_states = false}),
        "");
    EXPECT_EQ(
        error_with(
            std::make_shared<LongModule>(), {}, {.module_strict = false}),
        "");
    RunPlan sgd{.stage = 1};
    sgd.optimizer =
        R"({"type": "SGD", "params": {"lr": 0.01, "momentum": 0.9}})";
    EXPECT_THAT(
        error_with(std::make_shared<SmallModule>(), sgd),
        testing::AllOf(
            testing::StartsWith("78 "),
            HasSubstr("exp_avg"),
            HasSubstr("momentum_buffer")));
    EXPECT_EQ(
        error_with(std::make_shared<SmallModule>(), sgd, {.module_only = true}),
        "");
    EXPECT_THAT(
        error_with(std::make_shared<SmallModule>(), {}, {.tag = "three"}),
        HasSubstr("three"));
  });
}

// "extra" in place of "last".
struct SwappedModule : LongModule {
  SwappedModule() {
    parameters_.erase("last");
  }
};

TEST(Checkpoint, WithoutStrictnessTheRestIsToldAndTrains) {
  for (const int stage : {0, 1, 2}) {
    const file::TemporaryFolder folder;
    save_two(folder.path(), {.ranks = 2, .stage = stage});
    on_ranks(2, [&](const auto& ranks) {
      auto module = std::make_shared<SwappedModule>();
      Engine engine = make_engine(module, ranks, {.stage = stage});
      testing::internal::CaptureStderr();
      const LoadedCheckpoint loaded =
          engine.load_checkpoint(folder.path(), {.module_strict = false});
      const std::string said = testing::internal::GetCapturedStderr();
      EXPECT_THAT(loaded.missing, testing::ElementsAre("extra"));
      EXPECT_THAT(loaded.unexpected, testing::ElementsAre("last"));
      if (ranks->rank() == 0) {
        EXPECT_THAT(said, HasSubstr("not in the checkpoint"));
        EXPECT_THAT(said, HasSubstr("states: extra\n"));
        EXPECT_THAT(said, HasSubstr("not in the model: last\n"));
      } else {
        EXPECT_EQ(said, "");
      }
      EXPECT_EQ(module->extra[0].template item<float>(), 1);
      engine.backward((module->extra * module->first.sum()).sum());
      engine.step();
      EXPECT_NE(module->extra[0].template item<float>(), 1);
      EXPECT_EQ(engine.global_steps(), 3);
    });
  }
}

// Python's stage 0 does not tell the names of the optimizer's parameters.
TEST(Checkpoint, NewParametersBesideThoseOfPythonsStage0) {
  const file::TemporaryFolder folder;
  save_two(folder.path(), {});
  for (const std::string tag : {"one", "two"}) {
    const std::string path =
        folder.path() + "/" + tag + "/mp_rank_00_model_states.pt";
    auto dict = *formats::load_torch_file(path).get_if<formats::Dict>();
    std::erase_if(dict.entries, [](const formats::DictEntry& entry) {
      return *entry.key.get_if<std::string>() == "deepspeed_cpp";
    });
    formats::save_torch_file(path, dict);
    std::filesystem::remove(folder.path() + "/" + tag + "/ds_manifest.json");
  }
  on_ranks(1, [&](const auto& ranks) {
    auto module = std::make_shared<LongModule>();
    Engine engine = make_engine(module, ranks, {});
    EXPECT_THAT(
        comm::error_of([&] { engine.load_checkpoint(folder.path()); }),
        testing::StartsWith("78 the checkpoint has no parameter extra"));
    const LoadedCheckpoint loaded =
        engine.load_checkpoint(folder.path(), {.module_strict = false});
    EXPECT_THAT(loaded.missing, testing::ElementsAre("extra"));
    EXPECT_EQ(engine.global_steps(), 2);
  });
}

TEST(Checkpoint, AParameterThatWasFrozenHasNoStatesToLoad) {
  const file::TemporaryFolder folder;
  on_ranks(1, [&](const auto& ranks) {
    auto frozen = std::make_shared<SmallModule>();
    frozen->last.set_requires_grad(false);
    Engine engine = make_engine(frozen, ranks, {.stage = 1});
    engine.backward(frozen->first.sum());
    engine.step();
    engine.save_checkpoint(folder.path());
    Engine other =
        make_engine(std::make_shared<SmallModule>(), ranks, {.stage = 1});
    for (const bool strict : {true, false}) {
      EXPECT_THAT(
          comm::error_of([&] {
            other.load_checkpoint(folder.path(), {.module_strict = strict});
          }),
          testing::StartsWith("65 the checkpoint has no optimizer state of "
                              "'last'"));
    }
    other.load_checkpoint(folder.path(), {.optimizer_states = false});
  });
}

TEST(Checkpoint, BuffersThatTheModuleComputesAreChecked) {
  struct WithPositions : SmallModule {
    WithPositions() {
      register_buffer("positions", at::arange(4).unsqueeze(0));
    }
  };
  const file::TemporaryFolder folder;
  on_ranks(1, [&](const auto& ranks) {
    auto module = std::make_shared<WithPositions>();
    Engine engine = make_engine(module, ranks, {.stage = 1});
    train_step(engine, *module, 0);
    engine.save_checkpoint(folder.path());
    Engine other =
        make_engine(std::make_shared<SmallModule>(), ranks, {.stage = 2});
    const auto error_with = [&](const at::Tensor& expected) {
      LoadOptions options;
      options.derived = {{"absent", expected}, {"positions", expected}};
      return comm::error_of(
          [&] { other.load_checkpoint(folder.path(), options); });
    };
    EXPECT_THAT(
        error_with(at::arange(1, 5).unsqueeze(0)),
        testing::StartsWith("65 the file holds other values"));
    EXPECT_THAT(
        error_with(at::arange(4)), testing::StartsWith("65 the file holds"));
    EXPECT_EQ(error_with(at::arange(4).unsqueeze(0)), "");
  });
}

// As torch stores them: the same file, made by torch, is read in
// torch_file_test.cpp.
struct ManyBuffers : SmallModule {
  explicit ManyBuffers(int64_t first) {
    for (const auto type :
         {at::kComplexFloat,
          at::kComplexDouble,
          at::kUInt16,
          at::kUInt32,
          at::kUInt64,
          at::kFloat8_e4m3fn,
          at::kFloat8_e5m2,
          at::kFloat8_e4m3fnuz,
          at::kFloat8_e5m2fnuz}) {
      register_buffer(
          at::toString(type), at::arange(first, first + 4).to(type));
    }
    const at::Tensor turns = at::polar(
        at::ones({3}, at::kDouble),
        at::arange(first, first + 3).to(at::kDouble));
    register_buffer("conjugated", turns.conj());
    register_buffer("negated", at::imag(turns.conj()));
    // Ten bytes, of which eight are two numbers.
    register_buffer(
        "odd_bytes",
        (at::arange(10, at::kByte) + first).slice(0, 0, 8).view(at::kFloat));
  }
};

TEST(Checkpoint, BuffersOfEveryDtypeComeBack) {
  const file::TemporaryFolder folder;
  on_ranks(2, [&](const auto& ranks) {
    auto module = std::make_shared<ManyBuffers>(1 + 9 * ranks->rank());
    Engine engine = make_engine(module, ranks, {.stage = 1});
    engine.save_checkpoint(folder.path());
    auto other = std::make_shared<ManyBuffers>(5);
    make_engine(other, ranks, {.stage = 0}).load_checkpoint(folder.path());
    const ManyBuffers first(1);
    for (const auto& item : first.named_buffers()) {
      const at::Tensor expected = item.value().resolve_conj().resolve_neg();
      for (const auto& found : {module, other}) {
        const at::Tensor buffer =
            found->named_buffers()[item.key()].resolve_conj().resolve_neg();
        ASSERT_EQ(buffer.scalar_type(), expected.scalar_type());
        EXPECT_EQ(
            std::memcmp(
                buffer.contiguous().data_ptr(),
                expected.contiguous().data_ptr(),
                expected.nbytes()),
            0)
            << item.key();
      }
    }
  });
}

TEST(Checkpoint, WhatCannotBeSavedIsRefusedAtTheStart) {
  on_ranks(2, [&](const auto& ranks) {
    const auto error_with = [&](const at::Tensor& buffer) {
      auto module = std::make_shared<SmallModule>();
      module->register_buffer("odd", buffer);
      return comm::error_of([&] { make_engine(module, ranks, {}); });
    };
    EXPECT_THAT(
        error_with(at::eye(3).to_sparse()),
        testing::StartsWith("78 buffer odd has the layout Sparse"));
    EXPECT_THAT(
        error_with(at::quantize_per_tensor(at::ones({3}), 0.1, 0, at::kQInt8)),
        testing::StartsWith("78 buffer odd is quantized"));
    EXPECT_THAT(
        error_with(at::zeros({3}, at::TensorOptions(at::kMeta))),
        testing::StartsWith("78 buffer odd has no values"));
    EXPECT_THAT(
        error_with(at::zeros({3}, at::kComplexHalf)),
        testing::StartsWith("78 buffer odd has the dtype ComplexHalf"));
    EXPECT_THAT(
        error_with(at::ones({1, 4}).expand({3, 4})),
        testing::StartsWith("78 buffer odd has elements that share memory"));
    // A buffer that came later.
    const file::TemporaryFolder folder;
    auto grown = std::make_shared<SmallModule>();
    Engine engine = make_engine(grown, ranks, {});
    grown->register_buffer("late", at::eye(3).to_sparse());
    EXPECT_THAT(
        comm::error_of([&] { engine.save_checkpoint(folder.path()); }),
        testing::AllOf(
            testing::StartsWith("78 "),
            HasSubstr("late has the layout Sparse")));
    // A frozen parameter is written in the same way.
    auto module = std::make_shared<SmallModule>();
    module->register_parameter("odd", at::eye(3).to_sparse(), false);
    EXPECT_THAT(
        comm::error_of([&] { make_engine(module, ranks, {}); }),
        testing::StartsWith("78 parameter odd has the layout Sparse"));
  });
}

TEST(Checkpoint, AFileOfAnotherKindOfNumbersDoesNotFit) {
  struct Positions : SmallModule {
    explicit Positions(const at::Tensor& value) {
      register_buffer("positions", value);
    }
  };
  const file::TemporaryFolder folder;
  on_ranks(1, [&](const auto& ranks) {
    const auto engine_of = [&](const at::Tensor& value) {
      return make_engine(std::make_shared<Positions>(value), ranks, {});
    };
    const auto error_with = [&](const at::Tensor& saved, auto type) {
      engine_of(saved).save_checkpoint(folder.path());
      return comm::error_of([&] {
        engine_of(at::zeros({2}, type)).load_checkpoint(folder.path());
      });
    };
    const at::Tensor numbers = at::arange(2) + 1; // 1 and 2
    EXPECT_THAT(
        error_with(numbers.to(at::kFloat) * 0.5, at::kLong),
        HasSubstr("float32[2]"));
    EXPECT_THAT(error_with(numbers, at::kBool), HasSubstr("int64[2]"));
    EXPECT_THAT(
        error_with(
            at::complex(numbers.to(at::kFloat), at::ones({2})), at::kFloat),
        HasSubstr("complex64[2]"));
    EXPECT_THAT(error_with(numbers + 255, at::kByte), HasSubstr("int64[2]"));
    // What loses nothing is converted, as Python does it.
    EXPECT_EQ(error_with(numbers.to(at::kUInt16), at::kLong), "");
    EXPECT_EQ(error_with(numbers, at::kUInt64), "");
    EXPECT_EQ(error_with(numbers.to(at::kFloat), at::kLong), "");
    EXPECT_EQ(error_with(at::arange(2).to(at::kByte), at::kBool), "");
    EXPECT_EQ(error_with(numbers.to(at::kDouble) / 3, at::kFloat), "");
  });
}

TEST(Checkpoint, TheConfigurationWinsAndSaysSo) {
  const file::TemporaryFolder folder;
  save_two(folder.path(), {.ranks = 1, .stage = 1});
  on_ranks(1, [&](const auto& ranks) {
    RunPlan plan{.stage = 1, .dtype = "bf16"};
    plan.optimizer =
        R"({"type": "Adam", "params": {"lr": 0.5, "weight_decay": 0.25}})";
    plan.more = R"(, "gradient_clipping": 3)";
    auto module = std::make_shared<SmallModule>();
    Engine engine = make_engine(module, ranks, plan);
    testing::internal::CaptureStderr();
    engine.load_checkpoint(folder.path());
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(engine.get_lr()[0], 0.5);
    for (const std::string line :
         {"changed: dtype fp32 -> bf16\n",
          "changed: gradient_clipping 1 -> 3\n",
          "changed: param group 0 lr 0.01 -> 0.5\n",
          "changed: param group 0 weight_decay 0 -> 0.25\n"}) {
      EXPECT_THAT(said, HasSubstr(line));
    }
    EXPECT_THAT(said, testing::Not(HasSubstr("eps")));
  });
}

} // namespace
} // namespace deepspeed
