#pragma once
#include <node_api.h>

#include <cstdint>
#include <string>

namespace tidemark {

/**
 * One owner per store. LevelDB's own lock holds neither within a process nor against another path to the same folder;
 * flock(2) holds against other processes and the registry, by device and inode, within this one.
 */
uint32_t lockStore(napi_env env, const std::string& folder);
/** `env` may be null where it is unknown. Idempotent. */
void unlockStore(napi_env env, uint32_t id);

/** fdatasync(2) of each *.log in the folder, then fsync(2) of the folder; returns how many files there were. */
uint32_t syncLogs(const std::string& folder);

}  // namespace tidemark
