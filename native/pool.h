#pragma once
#include <cstddef>
#include <functional>

namespace tidemark {

/**
 * Runs `task(0)` to `task(tasks - 1)` on this thread and up to `threads - 1` others, and returns when all are done.
 * Tasks must not throw and must not touch JavaScript. The threads are shared by the whole process, made when they are
 * first needed and never ended: idle they cost a stack's address space, and nothing has to be joined at exit.
 */
void runParallel(size_t tasks, size_t threads, const std::function<void(size_t)>& task);

}  // namespace tidemark
