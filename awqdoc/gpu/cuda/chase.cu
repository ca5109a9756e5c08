// Latency of memory: one thread follows a chain of addresses, each of which is stored where the one before points to.
// So each load waits for the one before it. `warm` loads bring what fits into the caches; then come `samples` of LOADS
// loads.
#include "probe.cuh"

constexpr int MOST_SAMPLES = 256;

DEVICE u64 follow(u64 address) {
    asm volatile("ld.global.u64 %0, [%0];" : "+l"(address)::"memory");
    return address;
}

extern "C" __global__ void chase(u64 first, int warm, int samples, u64* cycles, u64* last) {
    __shared__ u64 taken[MOST_SAMPLES];
    u64 at = first;
#pragma unroll 1
    for (int i = 0; i < warm; i++) at = follow(at);
#pragma unroll 1
    for (int sample = 0; sample < samples; sample++) {
        const u64 start = now_with(at);
#pragma unroll
        for (int i = 0; i < LOADS; i++) at = follow(at);
        taken[sample] = now_with(at) - start;
    }
    for (int sample = 0; sample < samples; sample++) cycles[sample] = taken[sample];
    *last = at;
}
