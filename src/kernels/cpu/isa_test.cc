#include "kernels/cpu/isa.h"

#include <gtest/gtest.h>

namespace quern::cpu {
namespace {

constexpr uint32_t kTile = 1u << 24;
constexpr uint32_t kInt8 = 1u << 25;

int requests = 0;

int grant() {
  ++requests;
  return 0;
}

int refuse() {
  ++requests;
  return -1;
}

TEST(Isa, UsesTilesWhenTheProcessorHasThemAndTheKernelGrantsThem) {
  EXPECT_TRUE(amx_usable(kTile | kInt8, grant));
  EXPECT_FALSE(amx_usable(kTile | kInt8, refuse));
}

TEST(Isa, AsksForNothingThatTheProcessorLacks) {
  requests = 0;
  for (const uint32_t edx : {0u, kTile, kInt8, ~(kTile | kInt8)}) {
    EXPECT_FALSE(amx_usable(edx, grant));
  }
  EXPECT_EQ(requests, 0);
}

TEST(Isa, NamesAreUniqueAndFound) {
  for (int i = 0; i < kIsaCount; ++i) {
    const auto isa = static_cast<Isa>(i);
    EXPECT_EQ(isa_from_name(isa_name(isa)), isa);
  }
  EXPECT_EQ(isa_from_name("amx2"), std::nullopt);
}

TEST(Isa, AMachineThatRunsOneRunsItsBase) {
  for (int i = 0; i < kIsaCount; ++i) {
    const auto isa = static_cast<Isa>(i);
    EXPECT_LE(isa_base(isa), isa);
    if (isa_supported(isa)) {
      EXPECT_TRUE(isa_supported(isa_base(isa))) << isa_name(isa);
      EXPECT_LE(isa, best_isa());
    }
  }
}

TEST(Isa, TheBaseStandsInForOnesThatAddNothing) {
  const int scalar = 1, avx2 = 2, vnni = 3;
  const auto tables =
      isa_tables<int>({{Isa::kScalar, &scalar}, {Isa::kAvx2, &avx2}, {Isa::kAvxVnni, &vnni}});
  EXPECT_EQ(table_for(tables, Isa::kScalar), 1);
  EXPECT_EQ(table_for(tables, Isa::kI8mm), 1);
  EXPECT_EQ(table_for(tables, Isa::kAvxVnni), 3);
  EXPECT_EQ(table_for(tables, Isa::kAmx), 2);
}

}  // namespace
}  // namespace quern::cpu
