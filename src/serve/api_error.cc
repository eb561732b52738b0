#include "serve/api_error.h"

namespace quern {

ApiError invalid_request(std::string param, std::string message, std::string code) {
  return {.status = 400,
          .type = "invalid_request_error",
          .code = std::move(code),
          .param = std::move(param),
          .message = std::move(message)};
}

ApiError not_supported(std::string param, std::string message) {
  return {.status = 501,
          .type = "not_supported_error",
          .code = "not_supported",
          .param = std::move(param),
          .message = std::move(message)};
}

ApiError api_error(const Error& error, std::string param) {
  switch (error.code) {
    case ErrorCode::kUnsupported:
      return not_supported(std::move(param), error.message);
    case ErrorCode::kExhausted:
      return {.status = 429,
              .type = "rate_limit_error",
              .code = "rate_limit_exceeded",
              .param = std::move(param),
              .message = error.message,
              .retry_after_seconds = 1};
    case ErrorCode::kNotFound: {
      ApiError refused = invalid_request(std::move(param), error.message);
      refused.status = 404;
      return refused;
    }
    default:
      return invalid_request(std::move(param), error.message);
  }
}

ApiError server_error(std::string message) {
  return {
      .status = 500, .type = "server_error", .code = "server_error", .message = std::move(message)};
}

}  // namespace quern
