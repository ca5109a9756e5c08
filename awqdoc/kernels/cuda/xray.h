// Marks: when a block ran, on which SM, and what a few of its warps did when. Only in instrumented builds: there what
// stands behind `//XRAY` in the other sources is code (awqdoc/gpu/xray.py, which also reads the buffer).
//
// The buffer has a row of XRAY_WORDS words of 64 bits for each block:
//   0           the SM, and bit 32: the block was here
//   1, 2        globaltimer and clock64 when thread 0 began
//   3 + 3 w     globaltimer and clock64 when the w-th chosen warp ended, and how many marks it has made
//   32 + 256 w  its first 256 marks: phase << 60 | clock64
// Every fourth warp is chosen. Its lanes write the same word, so it does not matter which of them pass a mark.
#pragma once
#include "xray_buffer.h"  // XRAY_BUFFER, its address, and XRAY_BLOCKS, the rows that it has

constexpr u32 XRAY_MARKS = 256, XRAY_HEAD = 32, XRAY_WORDS = XRAY_HEAD + 8 * XRAY_MARKS;

DEVICE u64* xray_row() {
    return reinterpret_cast<u64*>(XRAY_BUFFER) + static_cast<size_t>(blockIdx.y * gridDim.x + blockIdx.x) * XRAY_WORDS;
}

DEVICE void xray_now(u64* to) {
    u64 timer, clock;
    asm volatile("mov.u64 %0, %%globaltimer;\nmov.u64 %1, %%clock64;" : "=l"(timer), "=l"(clock)::"memory");
    to[0] = timer, to[1] = clock;
}

// The kernel's first statement. Where in the buffer (bytes) the next mark goes, and where the warp's part ends (0: keep
// none), are registers of the whole kernel: functions with marks need not hand them on, but must be inlined.
DEVICE void xray_begin() {
    const u32 block = blockIdx.y * gridDim.x + blockIdx.x;
    const bool chosen = threadIdx.x % 128 < 32 && block < XRAY_BLOCKS;
    const u32 next = 8 * (block * XRAY_WORDS + XRAY_HEAD + threadIdx.x / 128 * XRAY_MARKS);
    asm volatile(".reg .b32 xray_next, xray_last;\nmov.b32 xray_next, %0;\nmov.b32 xray_last, %1;" ::"r"(next),
                 "r"(chosen ? next + 8 * XRAY_MARKS : 0) : "memory");
    if (threadIdx.x == 0 && chosen) {
        u32 sm;
        asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
        xray_row()[0] = 1ull << 32 | sm;
        xray_now(xray_row() + 1);
    }
}

// From here on, until its next mark, the warp is in this phase: a number of awqdoc.gpu.xray.PHASES.
template <u64 PHASE>
DEVICE void xray_mark() {
    asm volatile(
        "{\n.reg .pred kept;\n.reg .b64 now, place;\n"
        "setp.lt.u32 kept, xray_next, xray_last;\n"
        "mov.u64 now, %%clock64;\n"
        "or.b64 now, now, %0;\n"
        "cvt.u64.u32 place, xray_next;\n"
        "add.u64 place, place, %1;\n"
        "@kept st.global.b64 [place], now;\n"
        "add.u32 xray_next, xray_next, 8;\n}" ::"n"(PHASE << 60), "n"(XRAY_BUFFER) : "memory");
}

// The last statement of every way through the kernel. What a warp has stored by then may still be on its way.
DEVICE void xray_end() {
    u32 next, last;
    asm volatile("mov.b32 %0, xray_next;\nmov.b32 %1, xray_last;" : "=r"(next), "=r"(last)::"memory");
    if (last == 0) return;
    u64* to = xray_row() + 3 + threadIdx.x / 128 * 3;
    xray_now(to);
    to[2] = __reduce_max_sync(__activemask(), next / 8 + XRAY_MARKS - last / 8);
}
