#pragma once
#include <functional>
#include <thread>

namespace tidemark {

/** A thread that takes no signals: those belong to Node's threads. Throws SystemError. */
std::thread startThread(std::function<void()> run);

}  // namespace tidemark
