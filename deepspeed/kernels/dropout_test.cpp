// Dropout against the scalar Philox, and its statistics.
#include "deepspeed/kernels/dropout.h"

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

TEST(Dropout, MakesThresholdAndScale) {
  const Dropout dropout = make_dropout(0.1f, 1, 2);
  EXPECT_EQ(dropout.threshold, 6554u);
  EXPECT_FLOAT_EQ(dropout.scale, 65536.0f / (65536 - 6554));
  EXPECT_FALSE(make_dropout(0.0f, 1, 2).active());
  EXPECT_EQ(make_dropout(1.0f, 1, 2).scale, 0.0f);
  EXPECT_NE(make_dropout(0.1f, 1, 3).key, dropout.key);
  EXPECT_NE(make_dropout(0.1f, 2, 2).key, dropout.key);
  for (float p : {-0.1f, 1.5f, NAN}) {
    EXPECT_THROW(make_dropout(p, 1, 2), base::Error);
  }
}

TEST(Dropout, BitsAreThoseOfTheScalarPhilox) {
  const Dropout dropout = make_dropout(0.1f, 42, 7);
  for_each_isa([&] {
    for (int64_t columns : {1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 1000}) {
      const uint64_t visit = 0x123456789abcdefULL * columns;
      const uint32_t row = 3u << 16 | 511;
      std::vector<uint16_t> bits(columns + 1, 0xabcd);
      dropout_bits(dropout, visit, row, columns, bits.data());
      for (int64_t c = 0; c < columns; ++c) {
        const base::PhiloxCounter words = base::philox(
            {row,
             static_cast<uint32_t>(c / 8),
             static_cast<uint32_t>(visit),
             static_cast<uint32_t>(visit >> 32)},
            dropout.key);
        const uint32_t word = words[c % 8 / 2];
        ASSERT_EQ(bits[c], c % 2 == 0 ? word & 0xffff : word >> 16)
            << columns << " columns, column " << c;
      }
      EXPECT_EQ(bits[columns], 0xabcd) << "wrote past the end";
    }
  });
}

TEST(Dropout, RowsDropWhatTheDefinitionSays) {
  constexpr int64_t kTokens = 23;
  const TestTokens tokens(kTokens);
  const Dropout dropout = make_dropout(0.3f, 5, 1);
  for_each_isa_and_type([&](auto type) {
    using T = decltype(type);
    for (int64_t columns : {1, 15, 16, 100, 256}) {
      const std::vector<T> x = random_array<T>(kTokens * columns, 1);
      std::vector<T> y(x.size());
      // Two cuts that do not match anything.
      dropout_rows(dropout, tokens.keys(), columns, x.data(), y.data(), 0, 5);
      dropout_rows(
          dropout, tokens.keys(), columns, x.data(), y.data(), 5, kTokens);
      std::vector<double> expected = doubles(x);
      for (int64_t i = 0; i < kTokens * columns; ++i) {
        const int64_t token = i / columns;
        expected[i] *= dropout_factor(
            dropout, tokens.visit[token], tokens.position[token], i % columns);
      }
      expect_near(y, expected, 1e-7, 0.0);
    }
  });
}

TEST(Dropout, DropsTheRightShareAndKeepsTheMean) {
  constexpr int64_t kTokens = 400;
  constexpr int64_t kColumns = 256;
  const TestTokens tokens(kTokens);
  const std::vector<float> ones(kTokens * kColumns, 1.0f);
  for (float p : {0.1f, 0.5f}) {
    std::vector<float> y = ones;
    dropout_rows(
        make_dropout(p, 9, 0),
        tokens.keys(),
        kColumns,
        y.data(),
        y.data(),
        0,
        kTokens);
    double sum = 0;
    int64_t dropped = 0;
    for (float value : y) {
      sum += value;
      dropped += value == 0.0f;
    }
    const double n = static_cast<double>(y.size());
    const double deviation = std::sqrt(p * (1 - p) / n);
    EXPECT_NEAR(dropped / n, p, 5 * deviation);
    EXPECT_NEAR(sum / n, 1.0, 5 * deviation / (1 - p));
  }
}

TEST(Dropout, InactiveCopies) {
  const std::vector<float> x = random_array<float>(30, 3);
  std::vector<float> y(30);
  dropout_rows(Dropout(), {}, 10, x.data(), y.data(), 0, 3);
  EXPECT_EQ(x, y);
}

TEST(Dropout, ADroppedInfinityIsNaN) {
  const TestTokens tokens(1);
  for_each_isa([&] {
    float x = INFINITY;
    dropout_rows(make_dropout(1.0f, 1, 1), tokens.keys(), 1, &x, &x, 0, 1);
    EXPECT_TRUE(std::isnan(x));
  });
}

} // namespace
} // namespace deepspeed::kernels
