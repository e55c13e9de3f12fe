// Early return on errors, in functions and in coroutines. (Debian 12's Abseil has no such macros.)

#ifndef NODE_AGENT_BASE_STATUS_MACROS_H_
#define NODE_AGENT_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// RETURN_IF_ERROR(expr): returns expr's status from the function if it is an error.
#define RETURN_IF_ERROR(expr)                                                          \
  do {                                                                                 \
    if (::absl::Status status_macro = (expr); !status_macro.ok()) return status_macro; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, expr): x becomes the value of a StatusOr, or its status is returned.
#define ASSIGN_OR_RETURN(lhs, expr) \
  DFSCSI_ASSIGN_OR_(DFSCSI_CONCAT_(statusor_macro_, __LINE__), lhs, expr, return)

// The same two for coroutines: `expr` is usually a co_await.
#define CO_RETURN_IF_ERROR(expr)                                                          \
  do {                                                                                    \
    if (::absl::Status status_macro = (expr); !status_macro.ok()) co_return status_macro; \
  } while (false)

#define CO_ASSIGN_OR_RETURN(lhs, expr) \
  DFSCSI_ASSIGN_OR_(DFSCSI_CONCAT_(statusor_macro_, __LINE__), lhs, expr, co_return)

#define DFSCSI_ASSIGN_OR_(temp, lhs, expr, exit_keyword) \
  auto temp = (expr);                                    \
  if (!temp.ok()) exit_keyword std::move(temp).status(); \
  lhs = *std::move(temp)
#define DFSCSI_CONCAT_INNER_(a, b) a##b
#define DFSCSI_CONCAT_(a, b) DFSCSI_CONCAT_INNER_(a, b)

#endif  // NODE_AGENT_BASE_STATUS_MACROS_H_
