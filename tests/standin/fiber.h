// Fibers: stacks that take turns on one thread. Assembly on x86-64 (a switch costs nanoseconds),
// ucontext elsewhere (a switch costs two system calls).
#pragma once
#include <stdint.h>
#include <stdlib.h>

static const size_t STANDIN_STACK_BYTES = 64 << 10;
static const uint64_t STANDIN_CANARY = 0x5ca1ab1edeadbea7ull;
static char* standin_stack_memory;
static int standin_stack_count;

static char* standin_stack(int thread) {
  return standin_stack_memory + STANDIN_STACK_BYTES * thread;
}

static void standin_stacks(int count) {  // kept from launch to launch
  if (count <= standin_stack_count) return;
  free(standin_stack_memory);
  standin_stack_memory = (char*)aligned_alloc(64, STANDIN_STACK_BYTES * count);
  standin_stack_count = count;
  for (int t = 0; t < count; ++t) *(uint64_t*)standin_stack(t) = STANDIN_CANARY;
}

static bool standin_intact(int thread) {
  return *(uint64_t*)standin_stack(thread) == STANDIN_CANARY;
}

#if defined(__x86_64__) && !defined(STANDIN_UCONTEXT)

typedef void* StandinContext;  // the stack pointer; the registers that a call keeps lie above it

extern "C" __attribute__((visibility("hidden"))) void standin_swap_stack(void** from, void* to);
asm(R"(
  .pushsection .text
  .hidden standin_swap_stack
  .globl standin_swap_stack
  .type standin_swap_stack, @function
standin_swap_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size standin_swap_stack, .-standin_swap_stack
  .popsection
)");

static void standin_switch(StandinContext& from, StandinContext& to) {
  standin_swap_stack(&from, to);
}

static void standin_prepare(StandinContext& context, int thread, void (*entry)()) {
  void** top = (void**)(standin_stack(thread) + STANDIN_STACK_BYTES) - 2;  // 16-byte aligned
  top[0] = (void*)entry;
  top[1] = nullptr;
  context = top - 6;
}

#else
#include <ucontext.h>

typedef ucontext_t StandinContext;

static void standin_switch(StandinContext& from, StandinContext& to) { swapcontext(&from, &to); }

static void standin_prepare(StandinContext& context, int thread, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = standin_stack(thread) + 64;  // above the canary
  context.uc_stack.ss_size = STANDIN_STACK_BYTES - 64;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

#endif
