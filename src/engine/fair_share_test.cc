#include "engine/fair_share.h"

#include <gtest/gtest.h>

#include "engine/request.h"

namespace quern {
namespace {

TEST(FairShare, RisesByTokensOverWeight) {
  FairShare share;
  share.arrive(1);
  share.arrive(2);
  share.charge(1, 30, 1);
  share.charge(2, 30, 3);
  EXPECT_EQ(share.counter(1), 3 * share.counter(2));
  EXPECT_EQ(share.counter(2), 10 * kMaxTenantWeight);
}

TEST(FairShare, GivesNothingForHavingBeenIdle) {
  FairShare share;
  share.arrive(1);
  share.charge(1, 100, 1);
  share.arrive(1);
  share.admit(1);  // at 100
  share.arrive(2);
  EXPECT_EQ(share.counter(2), share.counter(1));
  share.arrive(3);
  share.charge(1, 50, 1);
  share.leave(3);
  share.arrive(3);
  EXPECT_EQ(share.counter(3), 100 * kMaxTenantWeight);  // where the last one was admitted
}

TEST(FairShare, RemembersWhatATenantOwesThatLeft) {
  FairShare share;
  share.arrive(1);
  share.admit(1);
  share.charge(1, 100, 1);
  share.arrive(2);
  share.arrive(1);
  EXPECT_GT(share.counter(1), share.counter(2));
}

TEST(FairShare, ForgetsIdleTenantsWhenThereAreMany) {
  FairShare share;
  share.arrive(7);
  for (uint64_t tenant = 100; tenant < 200000; ++tenant) {
    share.arrive(tenant);
    share.admit(tenant);
    if (tenant % 2 == 0) share.charge(tenant, 5, 1);  // owes something
    ASSERT_LE(share.tenants(), 20000u);
  }
  share.admit(7);  // it waited all the time and was not forgotten
}

}  // namespace
}  // namespace quern
