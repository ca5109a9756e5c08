// Step 1: write the weight out as FP16, and let cuBLAS multiply.
//
// A thread takes a word of AutoAWQ's format, subtracts the zero points, multiplies by the scales and stores 8 halves.
// Why: it is what a program does that has no INT4 kernel. The weight crosses the memory three times: INT4 in, FP16 out,
// FP16 in again.
// What it bought: the experiment `kernels`.
using u32 = unsigned;

#define DEVICE static __device__ __forceinline__

DEVICE unsigned short code_times_scale(int code, unsigned short scale) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(scale));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(scale) : "f"(value * code));
    return scale;
}

extern "C" __global__ void dequantize(const u32* __restrict__ qweight, const u32* __restrict__ qzeros,
                                      const unsigned short* __restrict__ scales, unsigned short* __restrict__ weight,
                                      int K, int N, int group_size) {
    const int words = N / 8, word = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y;
    if (word >= words) return;
    const int group = k / group_size;
    const u32 codes = qweight[static_cast<size_t>(k) * words + word], zeros = qzeros[group * words + word];
    alignas(16) unsigned short halves[8];
#pragma unroll
    for (int column = 0; column < 8; column++) {
        const int shift = 4 * (column / 2 + column % 2 * 4);  // AutoAWQ's order: 0 2 4 6 1 3 5 7
        const int code = (codes >> shift & 15) - (zeros >> shift & 15);
        halves[column] = code_times_scale(code, scales[static_cast<size_t>(group) * N + 8 * word + column]);
    }
    *reinterpret_cast<uint4*>(weight + static_cast<size_t>(k) * N + 8 * word) = *reinterpret_cast<const uint4*>(halves);
}
