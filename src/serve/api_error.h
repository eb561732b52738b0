// The outcome of a step of reading a call: a value, or what the call is refused with.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/result.h"
#include "serve/exchange.h"

namespace quern {

// Like Result<T>, with an error that knows HTTP. QUERN_TRY works on it.
template <typename T>
class [[nodiscard]] ApiResult {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): reads as the value itself
  ApiResult(T value) : state_(std::in_place_index<0>, std::move(value)) {}

  // NOLINTNEXTLINE(google-explicit-constructor)
  ApiResult(ApiError error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const noexcept { return state_.index() == 0; }

  explicit operator bool() const noexcept { return has_value(); }

  // Precondition of value(), operator* and operator->: has_value().
  T& value() & { return std::get<0>(state_); }

  const T& value() const& { return std::get<0>(state_); }

  T&& value() && { return std::get<0>(std::move(state_)); }

  T& operator*() & { return value(); }

  const T& operator*() const& { return value(); }

  T* operator->() { return &value(); }

  const T* operator->() const { return &value(); }

  const ApiError& error() const& { return std::get<1>(state_); }

  ApiError&& error() && { return std::get<1>(std::move(state_)); }

 private:
  std::variant<T, ApiError> state_;
};

// A 400 of type "invalid_request_error"; `param` is the field at fault.
ApiError invalid_request(std::string param, std::string message, std::string code = {});

// A 501: valid, but nothing here can do it.
ApiError not_supported(std::string param, std::string message);

// Of the library below: kNotFound is 404, kUnsupported 501, kExhausted 429, the rest 400.
ApiError api_error(const Error& error, std::string param);

// What has gone wrong on our side after the call was accepted: 500, "server_error".
ApiError server_error(std::string message);

}  // namespace quern
