// The table of endpoints: method and path of a call to the function that answers it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/exchange.h"
#include "serve/served_model.h"

namespace quern {

// Reads and checks a whole call: parses the body, renders the chat template, encodes the prompt and
// compiles grammars, on the calling thread. Any number of threads may call it at once. `path` has
// neither query nor fragment. Borrows `models`; the exchange borrows the model it names.
// Errors: ApiError with the HTTP status: 400 for a field, 404 for an unknown path or model, 405 for
// a method the path does not have, 501 for what no engine here can do. The wire form of an error is
// api_error_body().
OpenedExchange open_exchange(const ServedModels& models,
                             std::string_view method,
                             std::string_view path,
                             const ApiCall& call);

// The JSON body of an error on `path`: Anthropic's shape below /v1/messages, else OpenAI's. Also
// for errors that no exchange knows of: 413, 429, 503.
std::string api_error_body(std::string_view path,
                           const ApiError& error,
                           std::string_view request_id);

// The methods that `path` has, e.g. "GET, HEAD" (for Allow); empty when there is no such path.
std::string allowed_methods(std::string_view path);

}  // namespace quern
