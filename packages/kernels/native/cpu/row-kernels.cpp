// Compiled several times with CPU_CAPABILITY set to DEFAULT, AVX2 and AVX512. Keep non-inline code out of headers
// included here: the linker may keep the copy of any of the three.
#include "cpu/row-kernels.h"

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <vector>

namespace fmoe::cpu {

namespace CPU_CAPABILITY {

namespace {

template <typename scalar_t>
using Accumulator = at::opmath_type<scalar_t>;

// One vector register of elements, widened to the accumulation type: itself, or two float vectors for a half type.
template <typename scalar_t>
struct Block {
  using Storage = at::vec::Vectorized<scalar_t>;
  using Wide = at::vec::Vectorized<Accumulator<scalar_t>>;
  static constexpr int kParts = sizeof(Accumulator<scalar_t>) / sizeof(scalar_t);
  static constexpr int64_t kSize = Storage::size();

  Wide part[kParts];

  static Block zero() {
    Block block;
    for (int i = 0; i < kParts; ++i) {
      block.part[i] = Wide(0);
    }
    return block;
  }

  static Block load(const scalar_t* data, int64_t count) {
    Block block;
    const Storage stored = count == kSize ? Storage::loadu(data) : Storage::loadu(data, count);
    if constexpr (kParts == 1) {
      block.part[0] = stored;
    } else {
      std::tie(block.part[0], block.part[1]) = at::vec::convert_to_float<scalar_t>(stored);
    }
    return block;
  }

  void store(scalar_t* data, int64_t count) const {
    Storage stored;
    if constexpr (kParts == 1) {
      stored = part[0];
    } else {
      stored = at::vec::convert_from_float<scalar_t>(part[0], part[1]);
    }
    if (count == kSize) {
      stored.store(data);
    } else {
      stored.store(data, count);
    }
  }

  void add(const Block& other) {
    for (int i = 0; i < kParts; ++i) {
      part[i] = part[i] + other.part[i];
    }
  }

  void add_product(const Block& other, const Wide& factor) {
    for (int i = 0; i < kParts; ++i) {
      part[i] = at::vec::fmadd(other.part[i], factor, part[i]);
    }
  }

  void add_product(const Block& left, const Block& right) {
    for (int i = 0; i < kParts; ++i) {
      part[i] = at::vec::fmadd(left.part[i], right.part[i], part[i]);
    }
  }

  Block times(const Wide& factor) const {
    Block block;
    for (int i = 0; i < kParts; ++i) {
      block.part[i] = part[i] * factor;
    }
    return block;
  }

  // The lanes added in their order.
  Accumulator<scalar_t> sum() const {
    Accumulator<scalar_t> lanes[Wide::size()];
    Accumulator<scalar_t> total = 0;
    for (int i = 0; i < kParts; ++i) {
      part[i].store(lanes);
      for (int lane = 0; lane < Wide::size(); ++lane) {
        total += lanes[lane];
      }
    }
    return total;
  }
};

// Calls body(begin, count) for each block of a row; the last may be short.
template <typename scalar_t, typename Body>
inline void for_blocks(int64_t first, int64_t last, const Body& body) {
  constexpr int64_t size = Block<scalar_t>::kSize;
  int64_t begin = first;
  for (; begin + size <= last; begin += size) {
    body(begin, size);
  }
  if (begin < last) {
    body(begin, last - begin);
  }
}

template <typename scalar_t>
void weighted_sum(const WeightedSum& task, int64_t first_token, int64_t last_token) {
  using B = Block<scalar_t>;
  const int64_t features = task.features;
  const auto* rows = static_cast<const scalar_t*>(task.rows);
  const auto* factor = static_cast<const Accumulator<scalar_t>*>(task.factor);
  std::vector<const scalar_t*> source(task.choices);
  std::vector<Accumulator<scalar_t>> scale(task.choices);
  for (int64_t token = first_token; token < last_token; ++token) {
    int64_t terms = 0;
    for (int64_t slot = token * task.choices; slot < (token + 1) * task.choices; ++slot) {
      if (task.slot_row[slot] >= 0) {
        source[terms] = rows + task.slot_row[slot] * features;
        scale[terms++] = factor == nullptr ? 1 : factor[slot];
      }
    }
    scalar_t* out = static_cast<scalar_t*>(task.out) + token * features;
    if (factor == nullptr) {
      for_blocks<scalar_t>(0, features, [&](int64_t begin, int64_t count) {
        B total = B::zero();
        for (int64_t term = 0; term < terms; ++term) {
          total.add(B::load(source[term] + begin, count));
        }
        total.store(out + begin, count);
      });
    } else {
      for_blocks<scalar_t>(0, features, [&](int64_t begin, int64_t count) {
        B total = B::zero();
        for (int64_t term = 0; term < terms; ++term) {
          total.add_product(B::load(source[term] + begin, count), typename B::Wide(scale[term]));
        }
        total.store(out + begin, count);
      });
    }
  }
}

template <typename scalar_t>
void weighted_sum_backward(const WeightedSumBackward& task, int64_t first_token, int64_t last_token) {
  using B = Block<scalar_t>;
  const int64_t features = task.features;
  const auto* factor = static_cast<const Accumulator<scalar_t>*>(task.factor);
  auto* factor_grad = static_cast<Accumulator<scalar_t>*>(task.factor_grad);
  for (int64_t token = first_token; token < last_token; ++token) {
    const auto* grad = static_cast<const scalar_t*>(task.grad) + token * features;
    for (int64_t slot = token * task.choices; slot < (token + 1) * task.choices; ++slot) {
      const int64_t row = task.slot_row[slot];
      if (row < 0) {
        factor_grad[slot] = 0;
        continue;
      }
      const auto* source = static_cast<const scalar_t*>(task.rows) + row * features;
      auto* target = static_cast<scalar_t*>(task.rows_grad) + row * features;
      const typename B::Wide scale(factor[slot]);
      B product = B::zero();
      for_blocks<scalar_t>(0, features, [&](int64_t begin, int64_t count) {
        const B incoming = B::load(grad + begin, count);
        product.add_product(incoming, B::load(source + begin, count));
        incoming.times(scale).store(target + begin, count);
      });
      factor_grad[slot] = product.sum();
    }
  }
}

template <typename scalar_t>
void column_sum(const ColumnSum& task, int64_t first_column, int64_t last_column) {
  using B = Block<scalar_t>;
  constexpr int64_t kRowsPerPiece = 64;
  constexpr int64_t kBlocks = 8;  // a strip of columns whose running sums stay in registers
  const auto* rows = static_cast<const scalar_t*>(task.rows);
  auto* out = static_cast<scalar_t*>(task.out);
  for (int64_t strip = first_column; strip < last_column; strip += kBlocks * B::kSize) {
    const int64_t strip_end = std::min(last_column, strip + kBlocks * B::kSize);
    B total[kBlocks];
    for (auto& block : total) {
      block = B::zero();
    }
    for (int64_t piece = 0; piece < task.row_count; piece += kRowsPerPiece) {
      const int64_t piece_end = std::min(task.row_count, piece + kRowsPerPiece);
      B partial[kBlocks];
      for (auto& block : partial) {
        block = B::zero();
      }
      for (int64_t row = piece; row < piece_end; ++row) {
        const auto* source = rows + row * task.columns;
        if (strip_end - strip == kBlocks * B::kSize) {
          for (int64_t i = 0; i < kBlocks; ++i) {
            partial[i].add(B::load(source + strip + i * B::kSize, B::kSize));
          }
        } else {
          int64_t i = 0;
          for_blocks<scalar_t>(strip, strip_end, [&](int64_t begin, int64_t count) {
            partial[i++].add(B::load(source + begin, count));
          });
        }
      }
      for (int64_t i = 0; i < kBlocks; ++i) {
        total[i].add(partial[i]);
      }
    }
    int64_t i = 0;
    for_blocks<scalar_t>(
        strip, strip_end, [&](int64_t begin, int64_t count) { total[i++].store(out + begin, count); });
  }
}

// The caller admits these four dtypes only.
#define FMOE_ANY_DTYPE(kernel)                                                   \
  [](const auto& task, int64_t first, int64_t last) {                            \
    switch (task.dtype) {                                                        \
      case c10::ScalarType::Double:                                              \
        return kernel<double>(task, first, last);                                \
      case c10::ScalarType::Half:                                                \
        return kernel<c10::Half>(task, first, last);                             \
      case c10::ScalarType::BFloat16:                                            \
        return kernel<c10::BFloat16>(task, first, last);                         \
      default:                                                                   \
        return kernel<float>(task, first, last);                                 \
    }                                                                            \
  }

}  // namespace

extern const RowKernels kRowKernels;
const RowKernels kRowKernels{
    FMOE_ANY_DTYPE(weighted_sum), FMOE_ANY_DTYPE(weighted_sum_backward), FMOE_ANY_DTYPE(column_sum)};

}  // namespace CPU_CAPABILITY

}  // namespace fmoe::cpu
