// Rate and latency of mma.sync m16n8k16: each warp multiplies A (16 x 16) by B^T (8 x 16) `turns` times, and adds to
// CHAINS sums in turn. With 1, each product waits for the one before it.
#include "probe.cuh"

// a: halves [16, 16], b: halves [8, 16], as pairs along k. sums: float [block, warp, chain, 16, 8].
extern "C" __global__ void __launch_bounds__(1024, 1)
mma_rate(const u32* a, const u32* b, int turns, float* sums, u64* cycles) {
    const int lane = threadIdx.x & 31, row = lane / 4, pair = lane % 4;
    u32 left[4];
#pragma unroll
    for (int i = 0; i < 4; i++) left[i] = a[(row + 8 * (i % 2)) * 8 + pair + 4 * (i / 2)];
    const u32 low = b[row * 8 + pair], high = b[row * 8 + pair + 4];
    float c[CHAINS][4] = {};
    __syncthreads();
    const u64 start = now();
#pragma unroll 1
    for (int turn = 0; turn < turns; turn++)
#pragma unroll
        for (int chain = 0; chain < CHAINS; chain++) mma(c[chain], left, low, high);
    __syncthreads();
    if (threadIdx.x == 0) cycles[blockIdx.x] = now() - start;
    float* mine = sums + (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * CHAINS * 128;
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)
#pragma unroll
        for (int i = 0; i < 4; i++) mine[chain * 128 + (row + 8 * (i / 2)) * 8 + 2 * pair + i % 2] = c[chain][i];
}
