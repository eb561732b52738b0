// How a cost card is shown: table, JSON and the disclosure block that goes with every figure.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "money/cost.h"

namespace quern {

// Replaces the value of `name` or appends it.
void set_disclosure(Disclosure* disclosure, const std::string& name, const std::string& value);

// Adds what every card states: price, utilisation, and a word for hardware that nobody named.
void add_cost_disclosure(Disclosure* disclosure,
                         const CostInputs& inputs,
                         const std::string& price_basis);

std::string cost_table(const CostInputs& inputs, const CostCard& card);
std::string disclosure_text(const Disclosure& disclosure);
nlohmann::ordered_json disclosure_json(const Disclosure& disclosure);
nlohmann::ordered_json cost_json(const CostInputs& inputs,
                                 const CostCard& card,
                                 const Disclosure& disclosure);

// "$1.3000", "$0.0421"; more digits for small sums.
std::string format_usd(double usd);

}  // namespace quern
