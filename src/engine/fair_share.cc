#include "engine/fair_share.h"

#include <algorithm>

#include "base/check.h"
#include "engine/request.h"

namespace quern {

void FairShare::arrive(uint64_t tenant) {
  if (accounts_.size() >= kMaxTenants && accounts_.count(tenant) == 0) forget_idle();
  Account& account = accounts_[tenant];
  if (account.waiting++ == 0) account.counter = std::max(account.counter, last_admitted_);
}

void FairShare::admit(uint64_t tenant) {
  last_admitted_ = std::max(last_admitted_, counter(tenant));
  leave(tenant);
}

void FairShare::leave(uint64_t tenant) {
  const auto account = accounts_.find(tenant);
  QUERN_CHECK(account != accounts_.end() && account->second.waiting > 0);
  --account->second.waiting;
}

// A tenant may have been forgotten while it ran: what it is served then goes uncharged.
void FairShare::charge(uint64_t tenant, int64_t tokens, int32_t weight) {
  const auto account = accounts_.find(tenant);
  if (account == accounts_.end()) return;
  account->second.counter += tokens * kMaxTenantWeight / weight;
}

int64_t FairShare::counter(uint64_t tenant) const {
  const auto account = accounts_.find(tenant);
  return account == accounts_.end() ? last_admitted_ : account->second.counter;
}

void FairShare::forget_idle() {
  std::erase_if(accounts_, [this](const auto& entry) {
    return entry.second.waiting == 0 && entry.second.counter <= last_admitted_;
  });
  if (accounts_.size() < kMaxTenants) return;
  std::erase_if(accounts_, [](const auto& entry) { return entry.second.waiting == 0; });
}

}  // namespace quern
