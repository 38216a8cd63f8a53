// Makes several calls at the same time: the first one in the calling thread, each other one in a
// thread of its own. The threads are kept. They look for work for a moment, then they sleep.
#include <pthread.h>
#include <sched.h>
#include <time.h>
#ifndef _WIN32
#include <signal.h>
#endif

#include <atomic>

typedef void Run(const Slot*);
constexpr int MOST = 256;     // threads
constexpr int LOOKS = 2000;   // before a thread sleeps
constexpr int YIELDS = 1000;  // before the caller sleeps, in case the processors do other work

static inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

struct alignas(128) Worker {
  std::atomic<unsigned> begun, ended;  // the number of the latest call
  std::atomic<bool> asleep;
  const Slot* call;  // the function and its argument
  pthread_mutex_t lock;
  pthread_cond_t wake;
};
static Worker workers[MOST];
static int threads;
static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;

static void make(const Slot* call) { ((Run*)call[0].p)((const Slot*)call[1].p); }

static void* serve(void* given) {
  Worker& own = *(Worker*)given;
  for (unsigned known = 0;; ++known) {
    for (int k = 0; k < LOOKS && own.begun == known; ++k) relax();
    if (own.begun == known) {
      pthread_mutex_lock(&own.lock);
      own.asleep = true;
      while (own.begun == known) pthread_cond_wait(&own.wake, &own.lock);
      own.asleep = false;
      pthread_mutex_unlock(&own.lock);
    }
    make(own.call);
    own.ended = known + 1;
  }
}

// Signals are for the threads of the program, and Windows has none.
#ifdef _WIN32
struct Signals {};
static void block(Signals*) {}
static void restore(const Signals*) {}
#else
typedef sigset_t Signals;
static void block(Signals* before) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, before);
}
static void restore(const Signals* before) { pthread_sigmask(SIG_SETMASK, before, nullptr); }
#endif

// Starts threads until there are `count`. Returns whether there are.
static bool hire(int count) {
  Signals before;
  block(&before);
  while (threads < count) {
    Worker& next = workers[threads];
    next.begun = next.ended = 0;
    next.asleep = false;
    pthread_mutex_init(&next.lock, nullptr);
    pthread_cond_init(&next.wake, nullptr);
    pthread_t thread;
    if (pthread_create(&thread, nullptr, serve, &next)) break;
    pthread_detach(thread);
    ++threads;
  }
  restore(&before);
  return threads >= count;
}

#ifndef _WIN32
static void forget_all() {  // a child process has none of the threads
  threads = 0;
  pthread_mutex_init(&busy, nullptr);
}
__attribute__((constructor)) static void watch_forks() {
  pthread_atfork(nullptr, nullptr, forget_all);
}
#endif

// The slots are the number of calls, then the function and the argument of each. If another thread
// makes calls at the same time, or no thread can be started, one call is made after another.
extern "C" void run(const Slot* a_) {
  const int count = (int)a_->i;
  const bool mine = count <= MOST && !pthread_mutex_trylock(&busy);
  if (!mine || !hire(count - 1)) {
    for (int k = 0; k < count; ++k) make(a_ + 1 + 2 * k);
    if (mine) pthread_mutex_unlock(&busy);
    return;
  }
  for (int k = 1; k < count; ++k) {
    Worker& worker = workers[k - 1];
    worker.call = a_ + 1 + 2 * k;
    ++worker.begun;
    if (worker.asleep) {
      pthread_mutex_lock(&worker.lock);
      pthread_cond_signal(&worker.wake);
      pthread_mutex_unlock(&worker.lock);
    }
  }
  make(a_ + 1);
  for (int k = 1; k < count; ++k) {
    const Worker& worker = workers[k - 1];
    for (int looks = 0; worker.ended != worker.begun; ++looks) {
      if (looks < LOOKS) {
        relax();
      } else if (looks < LOOKS + YIELDS) {
        sched_yield();
      } else {
        const timespec moment = {0, 50000};
        nanosleep(&moment, nullptr);
      }
    }
  }
  pthread_mutex_unlock(&busy);
}
