// What the probes share. Types, barriers, copies and mma are the ladder's; the sizes of its kernels mean nothing here.
#pragma once
#define TOKENS 8
#define GROUP 128
#define ZEROS 1
#include "hopper.cuh"

// The SM's clock.
DEVICE u64 now() {
    u64 clock;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clock)::"memory");
    return clock;
}

// The SM's clock once a value is there: an instruction that needs it comes first, and a warp issues in order. The value
// is an address, and never 0.
DEVICE u64 now_with(u64 arrived) {
    if (arrived == 0) asm volatile("trap;");
    return now();
}
