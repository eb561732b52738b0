// The tile instructions of AMX in plain C++, as the Intel 64 and IA-32 Architectures SDM states
// them, so that tests run the kernels for tiles on machines without any.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/tile_ops.h"

namespace quern::cpu {

// The tile state of one thread. What the processor answers with an exception (a tile that is not
// configured, operands whose shapes do not fit) fails a check.
class TileEmulator {
 public:
  // Whether LDTILECFG takes it.
  static bool valid(const TileConfig& config) {
    if (config.palette != 1 || config.start_row != 0) return false;
    for (const uint8_t byte : config.reserved) {
      if (byte != 0) return false;
    }
    for (int t = 0; t < 16; ++t) {
      const int rows = config.rows[t];
      const int row_bytes = config.row_bytes[t];
      if (rows > kTileTokens || row_bytes > kTileRowBytes) return false;
      if ((rows == 0) != (row_bytes == 0)) return false;
      if (t >= kTileRegisters && rows != 0) return false;
    }
    return true;
  }

  void configure(const TileConfig& config) {
    QUERN_CHECK(valid(config));
    config_ = config;
    for (Tile& tile : tiles_) tile = {};
  }

  void release() {
    config_ = {};
    config_.palette = 0;
    for (Tile& tile : tiles_) tile = {};
  }

  // Whether configure() came after the last release().
  bool configured() const { return config_.palette != 0; }

  void zero(int t) { checked(t) = {}; }

  void load(int t, const void* at, int64_t stride) {
    Tile& tile = checked(t);
    tile = {};
    const auto* from = static_cast<const std::byte*>(at);
    for (int row = 0; row < rows(t); ++row)
      std::memcpy(tile[index(row)].data(), from + row * stride, row_bytes(t));
  }

  void store(int t, void* at, int64_t stride) {
    const Tile& tile = checked(t);
    auto* to = static_cast<std::byte*>(at);
    for (int row = 0; row < rows(t); ++row)
      std::memcpy(to + row * stride, tile[index(row)].data(), row_bytes(t));
  }

  // TDPBSSD: signed bytes of `a` times signed bytes of `b`; sums wrap.
  void dot(int c, int a, int b) {
    Tile& sums = checked(c);
    const Tile& left = checked(a);
    const Tile& right = checked(b);
    QUERN_CHECK(c != a && c != b && a != b);
    QUERN_CHECK(rows(c) == rows(a) && row_bytes(c) == row_bytes(b));
    QUERN_CHECK(row_bytes(a) % 4 == 0 && row_bytes(a) / 4 == index(rows(b)));
    for (size_t m = 0; m < index(rows(a)); ++m) {
      for (size_t k = 0; k < index(rows(b)); ++k) {
        for (size_t n = 0; n < row_bytes(b) / 4; ++n) {
          uint32_t sum = 0;
          std::memcpy(&sum, &sums[m][4 * n], sizeof sum);
          for (size_t i = 0; i < 4; ++i)
            sum += static_cast<uint32_t>(left[m][4 * k + i] * right[k][4 * n + i]);
          std::memcpy(&sums[m][4 * n], &sum, sizeof sum);
        }
      }
    }
  }

 private:
  using Tile = std::array<std::array<int8_t, kTileRowBytes>, kTileTokens>;

  static size_t index(int i) { return static_cast<size_t>(i); }

  Tile& checked(int t) {
    QUERN_CHECK(configured() && t >= 0 && t < kTileRegisters && config_.rows[t] > 0);
    return tiles_[index(t)];
  }

  int rows(int t) const { return config_.rows[t]; }

  size_t row_bytes(int t) const { return config_.row_bytes[t]; }

  TileConfig config_{.palette = 0};
  std::array<Tile, kTileRegisters> tiles_{};
};

// The tile machine of linear_tiles.inl, one for each thread.
struct EmulatedTiles {
  static TileEmulator& here() {
    static thread_local TileEmulator emulator;
    return emulator;
  }

  static void configure(const TileConfig& config) { here().configure(config); }

  static void release() { here().release(); }

  template <int kTile>
  static void zero() {
    here().zero(kTile);
  }

  template <int kTile>
  static void load(const void* at, int64_t stride) {
    here().load(kTile, at, stride);
  }

  template <int kTile>
  static void store(void* at, int64_t stride) {
    here().store(kTile, at, stride);
  }

  template <int kC, int kA, int kB>
  static void dot() {
    here().dot(kC, kA, kB);
  }
};

}  // namespace quern::cpu
