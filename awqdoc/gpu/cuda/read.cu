// Bandwidth of reading: each block reads a slice of its own `rounds` times, a thread LOADS x 16 bytes at once. What
// comes is added up, so that nothing can be left out. CACHED 1: through the L1 cache; 0: past it.
#include "probe.cuh"

DEVICE uint4 load(const uint4* from) {
    uint4 value;
#if CACHED
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
#else
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
#endif
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w) : "l"(from) : "memory");
    return value;
}

// `quads` of 16 bytes are a slice, and a multiple of LOADS * blockDim.x.
extern "C" __global__ void __launch_bounds__(1024, 1)
read(const uint4* from, int quads, int rounds, u32* sums, u64* cycles) {
    const uint4* slice = from + static_cast<size_t>(blockIdx.x) * quads + threadIdx.x;
    u32 sum = 0;
    __syncthreads();
    const u64 start = now();
#pragma unroll 1
    for (int round = 0; round < rounds; round++)
#pragma unroll 1
        for (int first = 0; first < quads; first += LOADS * blockDim.x) {
            uint4 values[LOADS];
#pragma unroll
            for (int i = 0; i < LOADS; i++) values[i] = load(slice + first + i * blockDim.x);
#pragma unroll
            for (int i = 0; i < LOADS; i++) sum += values[i].x + values[i].y + values[i].z + values[i].w;
        }
    __syncthreads();
    if (threadIdx.x == 0) cycles[blockIdx.x] = now() - start;
    sums[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
