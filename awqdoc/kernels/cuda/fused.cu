// Step 2: dequantize where it is multiplied, so that the FP16 weight is never written.
//
// What changed since step 1: one kernel. A thread has the 8 columns of a word, walks down K, and multiplies each of the 8
// weights by the X of TOKENS tokens in FP32. Warps of a block share the walk and add up at its end.
// Why: only the packed weight crosses the memory. But each weight costs shifts, a conversion and TOKENS multiplications
// on the slow pipes, and its lanes ask for 4 bytes at a time.
// What it bought: the experiment `kernels`.
using u16 = unsigned short;
using u32 = unsigned;

#define DEVICE static __device__ __forceinline__
constexpr int WARPS = 8;

DEVICE float to_float(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

// Rows of one group: codes and zero points subtracted, times X; the scale comes afterwards.
DEVICE void walk(float (&sums)[TOKENS][8], const u32* qweight, const u16* x, u32 zeros, int words, int K, int tokens) {
    for (int k = threadIdx.x / 32; k < GROUP; k += WARPS) {
        const u32 codes = qweight[static_cast<size_t>(k) * words];
        float value[TOKENS];
#pragma unroll
        for (int token = 0; token < TOKENS; token++)
            value[token] = token < tokens ? to_float(x[static_cast<size_t>(token) * K + k]) : 0;
#pragma unroll
        for (int column = 0; column < 8; column++) {
            const int shift = 4 * (column / 2 + column % 2 * 4);
            const float code = static_cast<int>(codes >> shift & 15) - static_cast<int>(zeros >> shift & 15);
#pragma unroll
            for (int token = 0; token < TOKENS; token++) sums[token][column] += code * value[token];
        }
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
fused(const u32* __restrict__ qweight, const u32* __restrict__ qzeros, const u16* __restrict__ scales,
      const u16* __restrict__ x, u16* __restrict__ y, int M, int N, int K) {
    const int words = N / 8, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int word = min(blockIdx.x * 32 + lane, words - 1), first = blockIdx.y * TOKENS;
    float total[TOKENS][8] = {};
    for (int group = 0; group < K / GROUP; group++) {
        float sums[TOKENS][8] = {};
        walk(sums, qweight + static_cast<size_t>(group) * GROUP * words + word,
             x + static_cast<size_t>(first) * K + group * GROUP, qzeros[group * words + word], words, K, M - first);
#pragma unroll
        for (int column = 0; column < 8; column++) {
            const float scale = to_float(scales[static_cast<size_t>(group) * N + 8 * word + column]);
#pragma unroll
            for (int token = 0; token < TOKENS; token++) total[token][column] += scale * sums[token][column];
        }
    }
    __shared__ float shared[WARPS][8][32];
#pragma unroll
    for (int token = 0; token < TOKENS; token++) {
        __syncthreads();
#pragma unroll
        for (int column = 0; column < 8; column++) shared[warp][column][lane] = total[token][column];
        __syncthreads();
        float sum = 0;  // warp w adds up column w
        for (int part = 0; part < WARPS; part++) sum += shared[part][warp][lane];
        u16 half;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(sum));
        if (first + token < M && blockIdx.x * 32 + lane < words)
            y[static_cast<size_t>(first + token) * N + 8 * word + warp] = half;
    }
}
