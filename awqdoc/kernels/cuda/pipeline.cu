// Step 4: copies that run ahead.
//
// What changed since step 3: weight and X go to shared memory by asynchronous copies (cp.async), several records ahead
// of the multiplication. The weight is marked to leave the L2 cache first, so that X stays there.
// Why: in step 3 a warp stands still until its loads are there. Now the memory works while the tensor cores do.
// What it bought: the experiment `kernels`.
#include "ring.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
pipeline(const u8* __restrict__ weight, const u16* __restrict__ x, u16* __restrict__ y, int M, int N, int K) {
    //XRAY xray_begin();
    extern __shared__ __align__(128) u8 memory[];
    __shared__ float others[SUMS * 128];
    const int warp = threadIdx.x / 32, per_tile = K / DEPTH, first_token = blockIdx.y * TOKENS;
    Ring ring{memory, blockIdx.x * per_tile, (blockIdx.x + 1) * per_tile, 0};
    float sums[2][TILES][4] = {}, kept[TILES][4];
    ring.start_up_to(STAGES, weight, x, first_token, M, K);
    ring.multiply_part(sums, weight, x, ring.first, ring.last, first_token, M, K);
    //XRAY xray_mark<4>();
    exchange(sums, kept, others);
    //XRAY xray_mark<5>();
    store(kept, y, blockIdx.x * ROWS + (warp % 4) * 32 + (warp / 4) * 16, first_token, M, N);
    //XRAY xray_end();
}
