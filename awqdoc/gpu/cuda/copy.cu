// Bandwidth of copying: each block copies a slice of its own, a thread 4 x 16 bytes at once.
#include "probe.cuh"

// `quads` of 16 bytes are a slice, and a multiple of 4 * blockDim.x.
extern "C" __global__ void __launch_bounds__(1024, 1)
copy(const uint4* __restrict__ from, uint4* __restrict__ to, int quads) {
    const size_t mine = static_cast<size_t>(blockIdx.x) * quads + threadIdx.x;
#pragma unroll 1
    for (int first = 0; first < quads; first += 4 * blockDim.x) {
        uint4 values[4];
#pragma unroll
        for (int i = 0; i < 4; i++) values[i] = from[mine + first + i * blockDim.x];
#pragma unroll
        for (int i = 0; i < 4; i++) to[mine + first + i * blockDim.x] = values[i];
    }
}
