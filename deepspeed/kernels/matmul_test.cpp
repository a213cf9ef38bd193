// Products against sums in double precision, on every instruction set.
#include "deepspeed/kernels/matmul.h"

#include <cstdlib>
#include <limits>

#include "deepspeed/kernels/test_support.h"

namespace deepspeed::kernels {
namespace {

struct Shape {
  int64_t rows, columns, depth;
};

// Around the sizes of tiles, blocks and parts of the depth.
const std::vector<Shape> kShapes = {
    {1, 1, 1},
    {3, 5, 2},
    {12, 32, 256},
    {13, 33, 257},
    {25, 48, 600},
    {7, 700, 31},
    {300, 20, 40},
    {70, 64, 352},
    {33, 80, 576},
    {5, 9, 0}};

template <typename T, typename Out>
struct Problem {
  Problem(Shape shape, bool left_turned, bool right_turned) : size(shape) {
    const auto [rows, columns, depth] = shape;
    left = random_array<T>(rows * depth, 1);
    right = random_array<T>(depth * columns, 2);
    bias = random_array<T>(columns, 3);
    gate = random_array<Out>(rows * (columns + 3), 5);
    before = random_array<Out>(rows * (columns + 3), 4);
    args.rows = rows;
    args.columns = columns;
    args.depth = depth;
    args.left = {left.data(), depth, 1};
    if (left_turned) {
      args.left = {left.data(), 1, rows};
    }
    args.right = {right.data(), columns, 1};
    if (right_turned) {
      args.right = {right.data(), 1, depth};
    }
    args.out_row = columns + 3;
  }

  std::vector<Out> run(int64_t threads) {
    std::vector<Out> out = before;
    args.out = out.data();
    const MatmulBlocks blocks = matmul_blocks(size.rows, size.columns, threads);
    for (int64_t block = 0; block < blocks.count; ++block) {
      matmul(args, blocks, block, block + 1);
    }
    return out;
  }

  // What lies between the rows stays as it was.
  std::vector<double> expected() const {
    std::vector<double> out = doubles(before);
    for (int64_t i = 0; i < size.rows; ++i) {
      for (int64_t j = 0; j < size.columns; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < size.depth; ++k) {
          sum += double(float(at(args.left, i, k))) *
              double(float(at(args.right, k, j)));
        }
        double& to = out[i * args.out_row + j];
        to = (args.accumulate ? to : 0.0) + args.scale * sum +
            (args.bias != nullptr ? float(bias[j]) : 0.0f);
      }
    }
    return out;
  }

  static T at(const MatmulOperand<T>& x, int64_t i, int64_t j) {
    return x.data[i * x.row + j * x.column];
  }

  Shape size;
  std::vector<T> left, right, bias;
  std::vector<Out> before, gate;
  Matmul<T, Out> args;
};

template <typename T, typename Out>
void check_all_layouts() {
  for (const Shape& shape : kShapes) {
    for (const int layout : {0, 1, 2, 3}) {
      SCOPED_TRACE(
          testing::Message() << shape.rows << " " << shape.columns << " "
                             << shape.depth << " " << layout);
      Problem<T, Out> problem(shape, layout & 1, layout & 2);
      const double magnitude = 1.0 + std::sqrt(double(shape.depth));
      expect_near(problem.run(1), problem.expected(), 2e-6, magnitude);
      problem.args.scale = 0.37f;
      problem.args.bias = problem.bias.data();
      expect_near(problem.run(2), problem.expected(), 2e-6, magnitude);
      problem.args.bias = nullptr;
      problem.args.accumulate = true;
      expect_near(problem.run(1), problem.expected(), 2e-6, magnitude);
    }
  }
}

// The ways through GELU, against its own kernel and a product of elements.
template <typename T, typename Out>
void check_gelu(const Shape& shape) {
  Problem<T, Out> problem(shape, false, true);
  const double magnitude = 1.0 + std::sqrt(double(shape.depth));
  problem.args.gate = problem.gate.data();
  std::vector<double> expected = problem.expected();
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.columns; ++j) {
      const int64_t at = i * problem.args.out_row + j;
      expected[at] *= static_cast<float>(problem.gate[at]);
    }
  }
  expect_near(problem.run(2), expected, 1e-5, magnitude);

  problem.args.gate = nullptr;
  problem.args.scale = 0.1f;
  problem.args.bias = problem.bias.data();
  expected = problem.expected();
  std::vector<double> slope = doubles(problem.gate);
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.columns; ++j) {
      const int64_t at = i * problem.args.out_row + j;
      const double u = expected[at];
      const double phi = 0.5 * std::erfc(-u / std::sqrt(2.0));
      expected[at] = u * phi;
      slope[at] = phi + u * 0.3989422804014327 * std::exp(-0.5 * u * u);
    }
  }
  std::vector<Out> derivative = problem.gate;
  problem.args.gelu_derivative = derivative.data();
  expect_near(problem.run(1), expected, 1e-5);
  expect_near(derivative, slope, 1e-5);
}

TEST(Matmul, GoesThroughGelu) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    // The second one is summed in several parts.
    for (const Shape& shape : {Shape{13, 37, 30}, Shape{26, 33, 1100}}) {
      check_gelu<T, T>(shape);
      check_gelu<T, float>(shape);
    }
  });
}

TEST(Matmul, EqualsTheSumInDoublePrecision) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    check_all_layouts<T, T>();
    if constexpr (!std::is_same_v<T, float>) {
      check_all_layouts<T, float>();
    }
  });
}

// Past the caches or not, in whole tiles and the rest.
TEST(Matmul, StreamsTheSameResult) {
  for_each_isa_and_type([](auto type) {
    using T = decltype(type);
    constexpr int64_t kColumns = 96;
    Problem<T, float> problem({70, kColumns - 3, 50}, true, false);
    problem.args.scale = 0.5f;
    std::vector<float> out[2];
    for (const bool streams : {false, true}) {
      float* const memory = static_cast<float*>(
          std::aligned_alloc(64, 70 * kColumns * sizeof(float)));
      std::copy(problem.before.begin(), problem.before.end(), memory);
      problem.args.out = memory;
      problem.args.out_row = kColumns;
      problem.args.streams = streams;
      matmul(problem.args, matmul_blocks(70, kColumns - 3, 1), 0, 1);
      out[streams].assign(memory, memory + 70 * kColumns);
      std::free(memory);
    }
    EXPECT_EQ(out[0], out[1]);
    expect_near(out[1], problem.expected(), 2e-6, 8);
  });
}

TEST(Matmul, DoesNotDependOnTheNumberOfThreads) {
  for_each_isa([] {
    Problem<float, float> problem({130, 530, 700}, false, true);
    const std::vector<float> once = problem.run(1);
    for (const int64_t threads : {2, 3, 16}) {
      EXPECT_EQ(problem.run(threads), once);
    }
  });
}

TEST(Matmul, PassesOnWhatIsNotFinite) {
  for_each_isa([] {
    Problem<float, float> problem({13, 33, 20}, false, false);
    problem.left[2 * 20 + 7] = std::numeric_limits<float>::quiet_NaN();
    problem.left[3 * 20 + 7] = std::numeric_limits<float>::infinity();
    const std::vector<float> out = problem.run(1);
    for (int64_t i = 0; i < 13; ++i) {
      for (int64_t j = 0; j < 33; ++j) {
        const float x = out[i * 36 + j];
        EXPECT_EQ(std::isnan(x), i == 2);
        EXPECT_EQ(std::isinf(x), i == 3);
      }
    }
  });
}

TEST(Matmul, GivesEveryThreadABlock) {
  for (const Shape& shape :
       {Shape{800, 768, 256},
        {118, 50265, 256},
        {118, 256, 50265},
        {50265, 256, 118},
        {1000, 1000, 1000}}) {
    for (const int64_t threads : {1, 2, 3, 4}) {
      const MatmulBlocks blocks =
          matmul_blocks(shape.rows, shape.columns, threads);
      EXPECT_GE(blocks.count, threads);
      EXPECT_EQ(blocks.block_rows % 4, 0);
      EXPECT_EQ(blocks.block_columns % 32, 0);
    }
  }
  EXPECT_EQ(matmul_blocks(1, 1, 8).count, 1);
}

} // namespace
} // namespace deepspeed::kernels
