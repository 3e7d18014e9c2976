#include <cstring>
#include <mutex>
#include <utility>

#include "api.h"
#include "args.h"
#include "cleanup.h"
#include "errors.h"
#include "exiting.h"
#include "region.h"
#include "registry.h"
#include "shadow.h"

namespace tidemark {

namespace {
/** The environment that serves the faults of a residence: it is woken when some wait, and when it ends, what is missing is poisoned. */
class Server {
 public:
  Server(uint32_t region, napi_threadsafe_function wake) : region(region), wake_(wake) {}

  /** Throws ERR_NOT_LAZY when it is gone, with its region or with another restore of that. */
  std::shared_ptr<Residence> residence() const {
    const std::shared_ptr<Residence> found = residence_.lock();
    if (found == nullptr) throw CodedError("ERR_NOT_LAZY", "the region is closed, or another restore of it has begun");
    return found;
  }
  void serve(napi_env env, uint32_t number, const std::shared_ptr<Residence>& residence) {
    residence_ = residence;
    // Added behind the thread-safe function, so that it runs before that is taken down.
    cleanup_ = Cleanup::add(env, ended, number);
  }

  void notify() {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (wake_ != nullptr) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
  }

  /** In the thread of the environment; null: it is ending. */
  void end(napi_env env) {
    if (env != nullptr) Cleanup::remove(env, std::exchange(cleanup_, nullptr));
    {
      const std::lock_guard<std::mutex> guard(mutex_);
      if (wake_ != nullptr) napi_release_threadsafe_function(wake_, napi_tsfn_abort);
      wake_ = nullptr;
    }
    const std::shared_ptr<Residence> residence = residence_.lock();
    if (residence == nullptr) return;
    if (env == nullptr) exiting::prepare(residence->memory(), residence->length());
    residence->end();
  }

  const uint32_t region;

 private:
  static void ended(uint32_t number);
  std::mutex mutex_;
  napi_threadsafe_function wake_;
  std::weak_ptr<Residence> residence_;
  Cleanup* cleanup_ = nullptr;
};

/** Until the residence is gone: also when it is not served any more there are things to be asked. */
Registry<Server>& servers() {
  static Registry<Server>& instance = *new Registry<Server>();
  return instance;
}

void Server::ended(uint32_t number) {
  const std::shared_ptr<Server> server = servers().find(number);
  if (server == nullptr) return;
  server->cleanup_ = nullptr;
  server->end(nullptr);
}

std::shared_ptr<Server> serverOf(const Args& args) {
  const std::shared_ptr<Server> server = servers().find(args.id(0));
  if (server == nullptr) throw CodedError("ERR_NOT_LAZY", "the region is closed, or another restore of it has begun");
  return server;
}

std::shared_ptr<Residence> residenceOf(const Args& args) { return serverOf(args)->residence(); }

Napi::Value toArray(Napi::Env env, const std::vector<uint32_t>& numbers) {
  Napi::Uint32Array array = Napi::Uint32Array::New(env, numbers.size());
  if (!numbers.empty()) memcpy(array.Data(), numbers.data(), numbers.size() * sizeof(uint32_t));
  return array;
}

void check(napi_status status, const char* what) {
  if (status != napi_ok) throw CodedError("ERR_NAPI", what);
}

Napi::Value regionBecomeLazy(const Napi::CallbackInfo& info) {
  const Args args(info);
  const uint32_t id = args.id(0);
  const Runs missing = args.runs(1, "runs");
  const bool userFaults = args.boolean(2, "userFaults");
  if (info.Length() < 4 || !info[3].IsFunction()) throw ArgumentError(ArgumentError::kType, "onFaults must be a function");
  const Napi::Env env = info.Env();
  const std::shared_ptr<Region> region = Region::find(id);
  napi_threadsafe_function wake = nullptr;
  check(napi_create_threadsafe_function(env, info[3], nullptr, Napi::String::New(env, "tidemark:faults"), 0, 1, nullptr, nullptr, nullptr, nullptr, &wake), "no thread-safe function could be made");
  // It keeps nobody alive.
  napi_unref_threadsafe_function(env, wake);
  const uint32_t number = servers().add([&](uint32_t) { return std::make_shared<Server>(id, wake); });
  const std::shared_ptr<Server> server = servers().find(number);
  // Goes with the residence.
  const std::shared_ptr<void> entry(nullptr, [number](void*) { servers().remove(number); });
  try {
    server->serve(env, number, region->becomeLazy(missing, userFaults, [server, entry] { server->notify(); }));
  } catch (...) {
    server->end(env);
    throw;
  }
  return Napi::Number::New(env, number);
}

Napi::Value regionEndServing(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Server> server = servers().find(Args(info).id(0));
  if (server != nullptr) server->end(info.Env());
  return info.Env().Undefined();
}

Napi::Value regionFaults(const Napi::CallbackInfo& info) {
  const Args args(info);
  return toArray(info.Env(), residenceOf(args)->takeFaults());
}

Napi::Value regionMissing(const Napi::CallbackInfo& info) {
  const Args args(info);
  const auto from = static_cast<uint32_t>(args.integer(1, "fromPage", UINT32_MAX));
  const size_t most = args.integer(2, "most", UINT32_MAX);
  return toArray(info.Env(), residenceOf(args)->missing(from, most));
}

Napi::Value regionExpect(const Napi::CallbackInfo& info) {
  const Args args(info);
  std::vector<uint32_t> pages = args.uint32s(1, "pages");
  residenceOf(args)->expect(std::move(pages));
  return info.Env().Undefined();
}

Napi::Value regionTouched(const Napi::CallbackInfo& info) {
  const Args args(info);
  const size_t most = args.integer(1, "most", UINT32_MAX);
  return toArray(info.Env(), residenceOf(args)->touched(most));
}

Napi::Value regionStillMissing(const Napi::CallbackInfo& info) {
  const Args args(info);
  const std::vector<uint32_t> pages = args.uint32s(1, "pages");
  return toArray(info.Env(), residenceOf(args)->stillMissing(pages));
}

Napi::Value regionSupply(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Span<uint8_t> source = args.bytes(1, "source");
  const std::vector<uint32_t> numbers = args.uint32s(2, "pages");
  const bool byFault = args.boolean(3, "byFault");
  const auto shadowsId = static_cast<uint32_t>(args.integer(4, "shadows", UINT32_MAX));
  const auto table = static_cast<uint32_t>(args.integer(5, "table", UINT32_MAX));
  const Span<uint32_t> crcs = args.words(6, "crcs");
  const Span<uint8_t> depths = args.bytes(7, "depths");
  const auto need = [](bool fits, const char* message) {
    if (!fits) throw ArgumentError(ArgumentError::kRange, message);
  };
  need(source.length / kPageSize >= numbers.size() && crcs.length >= numbers.size() && depths.length >= numbers.size(), "source, crcs and depths must hold all pages");
  const std::shared_ptr<Server> server = serverOf(args);
  const std::shared_ptr<Shadows> shadows = shadowsId == 0 ? nullptr : Shadows::find(shadowsId, true);
  // A capture may take a page as soon as it is there: its shadow comes before it.
  const auto putShadows = [&](const std::vector<size_t>& mine) {
    if (shadows == nullptr) return;
    if (mine.size() == numbers.size()) {
      shadows->put(table, numbers, source.data, crcs.data, depths.data);
      return;
    }
    for (const size_t k : mine) shadows->put(table, {numbers[k]}, source.data + k * kPageSize, crcs.data + k, depths.data + k);
  };
  return Napi::Number::New(info.Env(), static_cast<double>(Region::find(server->region)->supply(server->residence(), source.data, numbers, byFault, putShadows)));
}

Napi::Value regionPoison(const Napi::CallbackInfo& info) {
  const Args args(info);
  const Runs pages = args.runs(1, "pages");
  const std::shared_ptr<Server> server = serverOf(args);
  Region::find(server->region)->poison(server->residence(), pages);
  return info.Env().Undefined();
}

Napi::Value regionPoisoned(const Napi::CallbackInfo& info) {
  const Args args(info);
  const bool drop = args.boolean(1, "drop");
  const Runs runs = Region::find(args.id(0))->poisoned(drop);
  std::vector<uint32_t> numbers;
  for (const Run& run : runs) numbers.insert(numbers.end(), {run.first, run.count});
  return toArray(info.Env(), numbers);
}

Napi::Value regionFetch(const Napi::CallbackInfo& info) {
  const Args args(info);
  const std::shared_ptr<Region> region = Region::find(args.id(0));
  args.words(1, "pages");
  // Asked with each capture: copied only if there is something to be fetched.
  return Napi::Boolean::New(info.Env(), region->anyMissing() && region->fetch(args.runs(1, "pages")));
}

Napi::Value exitingVerb(const Napi::CallbackInfo& info) {
  exiting::begin(static_cast<int>(Args(info).integer(0, "code", 255)));
  return info.Env().Undefined();
}

Napi::Value regionResidence(const Napi::CallbackInfo& info) {
  const Args args(info);
  const ResidenceStats stats = residenceOf(args)->stats();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("missing", static_cast<double>(stats.missing));
  result.Set("poisoned", static_cast<double>(stats.poisoned));
  result.Set("faults", static_cast<double>(stats.faults));
  result.Set("byFault", static_cast<double>(stats.byFault));
  result.Set("ahead", static_cast<double>(stats.ahead));
  result.Set("worstWait", stats.worst);
  result.Set("waits", toArray(info.Env(), {stats.waits.begin(), stats.waits.end()}));
  return result;
}
}  // namespace

void defineResidence(Napi::Object exports) {
  define<regionBecomeLazy>(exports, "regionBecomeLazy");
  define<regionEndServing>(exports, "regionEndServing");
  define<regionFaults>(exports, "regionFaults");
  define<regionMissing>(exports, "regionMissing");
  define<regionExpect>(exports, "regionExpect");
  define<regionTouched>(exports, "regionTouched");
  define<regionStillMissing>(exports, "regionStillMissing");
  define<regionSupply>(exports, "regionSupply");
  define<regionPoison>(exports, "regionPoison");
  define<regionPoisoned>(exports, "regionPoisoned");
  define<regionFetch>(exports, "regionFetch");
  define<exitingVerb>(exports, "exiting");
  define<regionResidence>(exports, "regionResidence");
}

}  // namespace tidemark
