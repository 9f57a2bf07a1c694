#include "errors.h"

#include <c10/util/Exception.h>

#include <new>

#include "handle-table.h"
#include "js-callbacks.h"

namespace fmoe {
namespace {

void throw_coded(napi_env env, const char* code, const char* message) { napi_throw_error(env, code, message); }

}  // namespace

void throw_to_js(Napi::Env env, std::exception_ptr error) {
  // The most derived classes first: all c10 errors derive from c10::Error, and that from std::exception.
  try {
    std::rethrow_exception(error);
  } catch (const JsException& e) {
    e.rethrow(env);
  } catch (const Napi::Error& e) {
    // A value of another type than this function takes.
    throw_coded(env, "native:ERR_ARGUMENT", e.what());
  } catch (const DisposedTensor& e) {
    throw_coded(env, "native:ERR_DISPOSED", e.what());
  } catch (const c10::OutOfMemoryError& e) {
    throw_coded(env, "native:ERR_OUT_OF_MEMORY", e.what_without_backtrace());
  } catch (const c10::IndexError& e) {
    throw_coded(env, "native:ERR_INDEX", e.what_without_backtrace());
  } catch (const c10::NotImplementedError& e) {
    throw_coded(env, "native:ERR_NOT_IMPLEMENTED", e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    throw_coded(env, "native:ERR_ARGUMENT", e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    throw_coded(env, "native:ERR_ARGUMENT", e.what_without_backtrace());
  } catch (const c10::DistError& e) {
    throw_coded(env, "native:ERR_COMM", e.what_without_backtrace());
  } catch (const c10::Error& e) {
    throw_coded(env, "native:ERR_RUNTIME", e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw_coded(env, "native:ERR_OUT_OF_MEMORY", "the C++ allocator is out of memory");
  } catch (const std::invalid_argument& e) {
    throw_coded(env, "native:ERR_ARGUMENT", e.what());
  } catch (const std::exception& e) {
    throw_coded(env, "native:ERR_RUNTIME", e.what());
  } catch (...) {
    throw_coded(env, "native:ERR_RUNTIME", "unknown C++ exception");
  }
}

}  // namespace fmoe
