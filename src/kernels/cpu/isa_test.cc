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

TEST(Isa, AMachineThatRunsOneRunsAllBeforeIt) {
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) {
    EXPECT_TRUE(isa_supported(static_cast<Isa>(i))) << i;
  }
}

TEST(Isa, ATableStandsInForLaterOnesThatAddNothing) {
  const int first = 1, third = 3;
  const IsaTables<int> tables = {&first, nullptr, &third};
  EXPECT_EQ(table_for(tables, Isa::kScalar), 1);
  EXPECT_EQ(table_for(tables, Isa::kAvx2), 1);
  EXPECT_EQ(table_for(tables, Isa::kAmx), 3);
}

}  // namespace
}  // namespace quern::cpu
