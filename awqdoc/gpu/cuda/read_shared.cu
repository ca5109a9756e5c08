// Bandwidth of shared memory: 1024 threads read 32 KB of it `rounds` times, 16 bytes at once each, and add them up. In
// each round a thread has the place of another: from the same one ptxas would read but once, whatever `volatile` says.
#include "probe.cuh"

constexpr int QUADS = 2048;  // of 16 bytes

DEVICE uint4 load(u32 from) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w) : "r"(from) : "memory");
    return value;
}

extern "C" __global__ void __launch_bounds__(1024, 1)
read_shared(const uint4* from, int rounds, u32* sums, u64* cycles) {
    __shared__ uint4 memory[QUADS];
    for (int i = threadIdx.x; i < QUADS; i += 1024) memory[i] = from[i];
    const u32 begin = shared_address(memory);
    u32 sum = 0;
    __syncthreads();
    const u64 start = now();
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
        const u32 place = (threadIdx.x + round * 32) * 16 % (QUADS * 16);
        const uint4 low = load(begin + place), high = load(begin + (place ^ QUADS * 8));
        sum += low.x + low.y + low.z + low.w + high.x + high.y + high.z + high.w;
    }
    __syncthreads();
    if (threadIdx.x == 0) cycles[blockIdx.x] = now() - start;
    sums[blockIdx.x * 1024 + threadIdx.x] = sum;
}
