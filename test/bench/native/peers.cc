// Other ways to take snapshots of memory, each as its users would write it, under the load that tidemark is measured with.
// Usage: peers METHOD MEBIBYTES SHARE ROUNDS FOLDER THREADS; prints one line of JSON: a first epoch, then one a round.
#include <cinttypes>
#include <memory>
#include <string>

#include "fork_peer.h"
#include "load.h"
#include "searching_peers.h"
#include "tracking_peers.h"

namespace {
std::unique_ptr<Peer> make(const std::string& method, Memory memory, size_t threads, EpochFile& file) {
  if (method == "none") return std::make_unique<NoPeer>(memory, threads, file);
  if (method == "copy") return std::make_unique<WholeCopy>(memory, threads, file);
  if (method == "compare") return std::make_unique<Comparison>(memory, threads, file);
  if (method == "hash") return std::make_unique<Hashes>(memory, threads, file);
  if (method == "mprotect") return std::make_unique<Protection>(memory, threads, file);
  if (method == "fork") return std::make_unique<Fork>(memory, threads, file);
  if (method == "userfault") return std::make_unique<Userfault>(memory, threads, file);
  errno = EINVAL;
  check(false, method.c_str());
  return nullptr;
}

/** `"name":[...]`, one value for each of `of`. */
template <typename T, typename Value>
void print(const char* name, const std::vector<T>& of, Value value) {
  printf("\"%s\":[", name);
  for (size_t k = 0; k < of.size(); k++) printf("%s%.3f", k == 0 ? "" : ",", static_cast<double>(value(of[k])));
  printf("],");
}
}  // namespace

int main(int argc, char** argv) {
  errno = EINVAL;
  check(argc == 7, "usage: peers METHOD MEBIBYTES SHARE ROUNDS FOLDER THREADS");
  const std::string method = argv[1];
  const size_t pages = (strtoull(argv[2], nullptr, 10) << 20) / kPage;
  const size_t dirty = static_cast<size_t>(pages * atof(argv[3]));
  const int rounds = atoi(argv[4]);
  const size_t threads = strtoull(argv[6], nullptr, 10);
  check(pages > 0 && dirty > 0 && rounds > 0 && threads > 0, "usage");
  const Memory memory{map(pages * kPage), pages};
  Records records;
  records.fill(memory.start, memory.bytes());
  const std::string filled = sumOf(memory.start, memory.bytes());

  const uint64_t before = procBytes("/proc/self/status", "VmRSS");
  forgetPeak();
  EpochFile file(argv[5], threads);
  const std::unique_ptr<Peer> peer = make(method, memory, threads, file);
  peer->checkpoint();
  std::vector<double> writes;
  for (int round = 0; round < rounds; round++) {
    const double start = threadNanoseconds();
    records.touch(memory.start, pages, dirty);
    writes.push_back((threadNanoseconds() - start) / dirty);
    peer->settle();
    peer->checkpoint();
  }
  // Nothing was written since; a child still has to be waited for.
  peer->settle();
  const uint64_t extra = procBytes("/proc/self/status", "VmHWM") - before + peer->bytesElsewhere();

  if (!peer->epochs.empty()) {
    const Memory restored{map(memory.bytes()), pages};
    file.restore(restored.start, pages);
    errno = EILSEQ;
    check(memcmp(restored.start, memory.start, memory.bytes()) == 0, "what was stored is not what the memory is");
  }
  const std::vector<Epoch>& epochs = peer->epochs;
  printf("{");
  print("writeNs", writes, [](double ns) { return ns; });
  print("blockedMs", epochs, [](const Epoch& epoch) { return epoch.blockedMs; });
  print("durableMs", epochs, [](const Epoch& epoch) { return epoch.durableMs; });
  print("storedBytes", epochs, [](const Epoch& epoch) { return epoch.storedBytes; });
  print("pages", epochs, [](const Epoch& epoch) { return epoch.pages; });
  printf("\"dirty\":%zu,\"extraBytes\":%" PRIu64 ",\"enlarged\":%" PRIu64 ",\"sums\":[\"%s\",\"%s\"]}\n", dirty, extra, peer->enlarged(), filled.c_str(),
         sumOf(memory.start, memory.bytes()).c_str());
}
