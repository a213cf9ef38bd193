// The manifest against what must not pass for one.
#include "deepspeed/checkpoint/manifest.h"

#include <gmock/gmock.h>

#include "deepspeed/base/error.h"

namespace deepspeed::checkpoint {
namespace {

Manifest example() {
  Manifest manifest;
  manifest.tag = "global_step5";
  manifest.run_id = "run-1";
  manifest.stage = 2;
  manifest.ranks = 3;
  manifest.dtype = "bfloat16";
  manifest.global_steps = 5;
  manifest.files = {
      {"a.pt", 10, std::string(32, 'a')},
      {"b.pt", uint64_t{1} << 40, std::string(32, 'b')}};
  manifest.extra = {{"seed", 1}, {"ratio", 0.1}, {"name", "\xc3\xa9"}};
  return manifest;
}

std::string fault(const std::string& text) {
  try {
    parse_manifest(text, "m.json");
    return "";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::ExitCode::data) << error.what();
    EXPECT_THAT(error.where(), ::testing::HasSubstr("m.json"));
    return error.what();
  }
}

TEST(Manifest, ComesBack) {
  const Manifest manifest = parse_manifest(manifest_text(example()), "m.json");
  EXPECT_EQ(manifest.tag, "global_step5");
  EXPECT_EQ(manifest.run_id, "run-1");
  EXPECT_EQ(manifest.stage, 2);
  EXPECT_EQ(manifest.ranks, 3);
  EXPECT_EQ(manifest.dtype, "bfloat16");
  EXPECT_EQ(manifest.global_steps, 5);
  ASSERT_EQ(manifest.files.size(), 2u);
  EXPECT_EQ(manifest.files[1].name, "b.pt");
  EXPECT_EQ(manifest.files[1].size, uint64_t{1} << 40);
  EXPECT_EQ(manifest.files[1].hash, std::string(32, 'b'));
  EXPECT_EQ(manifest.extra, example().extra);
}

// A bit in white space changes nothing that is read; all else is found.
TEST(Manifest, EveryFlippedBitIsFoundOrWithoutEffect) {
  const std::string text = manifest_text(example());
  const base::Json whole = base::parse_json(text, "m.json");
  size_t found = 0;
  for (size_t i = 0; i < text.size() * 8; ++i) {
    std::string flipped = text;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    if (!fault(flipped).empty()) {
      ++found;
      continue;
    }
    EXPECT_EQ(base::parse_json(flipped, "m.json"), whole) << i;
  }
  EXPECT_GT(found, text.size() * 6);
}

TEST(Manifest, EveryTruncationIsFound) {
  const std::string text = manifest_text(example());
  for (size_t size = 0; size + 1 < text.size(); ++size) {
    EXPECT_NE(fault(text.substr(0, size)), "") << size;
  }
}

TEST(Manifest, NamesStayInTheFolder) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "", "..", ".tmp-x"}) {
    Manifest manifest = example();
    manifest.files[0].name = name;
    EXPECT_NE(fault(manifest_text(manifest)), "") << name;
  }
  Manifest twice = example();
  twice.files[1].name = "a.pt";
  EXPECT_NE(fault(manifest_text(twice)), "");
  Manifest none = example();
  none.files.clear();
  EXPECT_NE(fault(manifest_text(none)), "");
}

TEST(Manifest, OtherKindsAreRefused) {
  EXPECT_NE(fault("[]"), "");
  EXPECT_NE(fault("{}"), "");
  EXPECT_NE(fault("null"), "");
  EXPECT_NE(fault(std::string(100'000, '[')), "");
  EXPECT_NE(fault(R"({"format": 7})"), "");
}

} // namespace
} // namespace deepspeed::checkpoint
