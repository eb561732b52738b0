// A function compiled for several instruction sets at once, chosen when the program is loaded. Only
// for functions that no header declares: Clang 14 compiles a function that was declared without the
// attribute for the first instruction set alone, whatever the machine has.
#pragma once

// Sanitizers cannot run before the resolvers that such functions need, and other machines and
// nvcc have no such attribute; there the plain function stays.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define QUERN_NO_CLONES 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__CUDACC__) || \
    !defined(__x86_64__)
#define QUERN_NO_CLONES 1
#endif

#ifdef QUERN_NO_CLONES
#define QUERN_CLONES
#else
#define QUERN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
