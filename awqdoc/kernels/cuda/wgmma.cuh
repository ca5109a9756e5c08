// wgmma: four warps multiply 64 rows, held as fragments in their registers, by all tokens, which lie in shared memory.
#pragma once
#include "hopper.cuh"

constexpr int PER_THREAD = TOKENS / 2;  // sums of 64 rows by TOKENS that a thread of the warpgroup holds

// Lists of the sums' registers, as text and as operands.
#define L16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define L24 L16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define L32 L24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define L40 L32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define L48 L40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define L56 L48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define L64 L56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F8(d, i) F4(d, i), F4(d, i + 4)
#define F16(d, i) F8(d, i), F8(d, i + 8)
#define INPUTS(a, x) "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(x)
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 "

// sums += a * X for 16 k. `x` describes a matrix in shared memory.
DEVICE void wgmma(float (&d)[PER_THREAD], const u32 (&a)[4], u64 x) {
#if TOKENS == 32
    asm volatile(WGMMA(32) "{" L16 "}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
                 : F16(d, 0) : INPUTS(a, x));
#elif TOKENS == 48
    asm volatile(WGMMA(48) "{" L24 "}, {%24, %25, %26, %27}, %28, 1, 1, 1, 0;"
                 : F16(d, 0), F8(d, 16) : INPUTS(a, x));
#elif TOKENS == 64
    asm volatile(WGMMA(64) "{" L32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : F16(d, 0), F16(d, 16) : INPUTS(a, x));
#elif TOKENS == 80
    asm volatile(WGMMA(80) "{" L40 "}, {%40, %41, %42, %43}, %44, 1, 1, 1, 0;"
                 : F16(d, 0), F16(d, 16), F8(d, 32) : INPUTS(a, x));
#elif TOKENS == 96
    asm volatile(WGMMA(96) "{" L48 "}, {%48, %49, %50, %51}, %52, 1, 1, 1, 0;"
                 : F16(d, 0), F16(d, 16), F16(d, 32) : INPUTS(a, x));
#elif TOKENS == 112
    asm volatile(WGMMA(112) "{" L56 "}, {%56, %57, %58, %59}, %60, 1, 1, 1, 0;"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F8(d, 48) : INPUTS(a, x));
#elif TOKENS == 128
    asm volatile(WGMMA(128) "{" L64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                 : F16(d, 0), F16(d, 16), F16(d, 32), F16(d, 48) : INPUTS(a, x));
#else
#error TOKENS must be a multiple of 16 from 32 to 128
#endif
}

// The descriptor of TOKENS rows of 64 k in shared memory, 128-byte swizzle: address and the 1024 bytes from one 8 rows to
// the next, in units of 16 bytes. 16 k further on is 2 more.
DEVICE u64 x_descriptor(u32 panel) {
    return static_cast<u64>(panel >> 4 & 0x3fff) | 1ull << 16 | static_cast<u64>(1024 >> 4) << 32 | 1ull << 62;
}

// Registers that wgmma reads or adds to may be touched again behind this.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }
