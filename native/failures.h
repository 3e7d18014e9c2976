#pragma once
#include <exception>
#include <string>
#include <utility>

// What goes wrong natively; errors.h makes JavaScript errors of it. Apart from that, for programs without Node.js: the benchmarks' own.

namespace tidemark {

/** A system call failed; becomes an Error with `code`, `errno` (negative, as Node's own) and `syscall`. */
struct SystemError : std::exception {
  SystemError(int number, const char* call, std::string path = {}) : number(number), call(call), path(std::move(path)) {}
  const char* what() const noexcept override { return call; }
  int number;
  const char* call;
  std::string path;
};

/** A condition of our own; becomes an Error with `code` ERR_... */
struct CodedError : std::exception {
  CodedError(const char* code, std::string message) : code(code), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  const char* code;
  std::string message;
};

/** Misuse: a TypeError, or a RangeError, without a code. */
struct ArgumentError : std::exception {
  enum Kind { kType, kRange };
  ArgumentError(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  Kind kind;
  std::string message;
};

}  // namespace tidemark
