// Turns every C++ exception into a JavaScript error with a code; nothing may cross the boundary otherwise.
#pragma once

#include <napi.h>

#include <exception>

namespace fmoe {

// Throws `error` into JavaScript. The error carries a `code` that starts with "native:", by which TypeScript tells it from
// errors of the user's own callbacks, and the message without C++ frames.
void throw_to_js(Napi::Env env, std::exception_ptr error);

// Runs `body`; on an exception throws it into JavaScript and returns an empty value.
template <typename Body>
napi_value guarded(Napi::Env env, Body&& body) {
  try {
    return body();
  } catch (...) {
    throw_to_js(env, std::current_exception());
    return nullptr;
  }
}

}  // namespace fmoe
