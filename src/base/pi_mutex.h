// PiMutex: a mutex with priority inheritance, annotated for clang's thread-safety analysis. Used where a real-time
// thread (the driver) and an ordinary one (a lane) meet: the holder runs on at the waiter's priority, and unlock hands
// the mutex to the waiter, so a busy loop that locks and unlocks cannot starve it.
#pragma once

#include <pthread.h>

#include "base/assert.h"
#include "base/thread_safety.h"

namespace twinstack {

class TS_CAPABILITY("mutex") PiMutex {
 public:
  PiMutex() noexcept {
    pthread_mutexattr_t attributes;
    ASSERT(pthread_mutexattr_init(&attributes) == 0);
    ASSERT(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
    ASSERT(pthread_mutex_init(&mutex_, &attributes) == 0);
    pthread_mutexattr_destroy(&attributes);
  }
  ~PiMutex() { pthread_mutex_destroy(&mutex_); }
  PiMutex(const PiMutex&) = delete;
  PiMutex& operator=(const PiMutex&) = delete;

  void lock() noexcept TS_ACQUIRE() { ASSERT(pthread_mutex_lock(&mutex_) == 0); }
  void unlock() noexcept TS_RELEASE() { ASSERT(pthread_mutex_unlock(&mutex_) == 0); }

 private:
  pthread_mutex_t mutex_;
};

class TS_SCOPED_CAPABILITY PiLock {
 public:
  explicit PiLock(PiMutex& mutex) noexcept TS_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~PiLock() TS_RELEASE() { mutex_.unlock(); }
  PiLock(const PiLock&) = delete;
  PiLock& operator=(const PiLock&) = delete;

 private:
  PiMutex& mutex_;
};

}  // namespace twinstack
