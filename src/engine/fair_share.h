// Who goes first among tenants: the one that has had the least service so far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace quern {

// Virtual token counters (VTC, arXiv:2401.00588): a tenant's counter rises by the tokens that it is
// served, divided by its weight, and the least counter goes first. A tenant that comes with nothing
// waiting is lifted to where the last one stood that was admitted, so that being idle earns
// nothing. Takes memory in arrive() alone. Owner thread only.
class FairShare {
 public:
  // A request of the tenant begins to wait.
  void arrive(uint64_t tenant);

  // It waits no more: it was admitted, or ended before.
  void admit(uint64_t tenant);
  void leave(uint64_t tenant);

  // Requires weight in [1, kMaxTenantWeight].
  void charge(uint64_t tenant, int64_t tokens, int32_t weight);

  // In tokens / kMaxTenantWeight of a tenant of weight 1.
  int64_t counter(uint64_t tenant) const;

  size_t tenants() const { return accounts_.size(); }

 private:
  // Beyond this, tenants with nothing waiting are forgotten: first those that lose nothing by it,
  // since they would be lifted to the same counter.
  static constexpr size_t kMaxTenants = 1 << 14;

  struct Account {
    int64_t counter = 0;
    int64_t waiting = 0;  // requests
  };

  void forget_idle();

  std::unordered_map<uint64_t, Account> accounts_;
  int64_t last_admitted_ = 0;  // the greatest counter that was admitted
};

}  // namespace quern
