// Step 3: tensor cores, fed straight from the layout.
//
// What changed since step 2: the weight lies in memory as the lanes of an mma want it, so that 16 bytes that a lane
// loads are its fragments of four products, and dequantizing a word takes nine instructions (`fragments.cuh`). X goes
// through shared memory. A block has a tile of 128 rows; two teams of four warps take its records in turn.
// Why: multiplying costs next to nothing now, and the batch is the narrow side of the mma: up to 8 tokens pad nothing.
// What it bought: the experiment `kernels`.
#include "fragments.cuh"

// Copy the part of X that a record is multiplied by to shared memory, with 256 threads.
DEVICE void copy_x(u8* to, const u16* x, int first_token, int first_k, int M, int K) {
    for (int i = threadIdx.x; i < TOKENS * 16; i += 256) {
        const int token = first_token + i / 16, chunk = i % 16;
        if (token < M)
            *reinterpret_cast<uint4*>(to + x_place(i / 16, chunk)) =
                *reinterpret_cast<const uint4*>(x + static_cast<size_t>(token) * K + first_k + chunk * 8);
    }
}

extern "C" __global__ void __launch_bounds__(256)
tensor_cores(const u8* __restrict__ weight, const u16* __restrict__ x, u16* __restrict__ y, int M, int N, int K) {
    extern __shared__ __align__(128) u8 memory[];  // X of two records; in the end the sums that the teams exchange
    const int warp = threadIdx.x / 32, rows = warp % 4, team = warp / 4;
    const int per_tile = K / DEPTH, first_token = blockIdx.y * TOKENS;
    float sums[2][TILES][4] = {}, kept[TILES][4];
    for (int record = 0; record < per_tile; record += 2) {
        __syncthreads();
        for (int i = 0; i < 2 && record + i < per_tile; i++)
            copy_x(memory + i * X_BYTES, x, first_token, (record + i) * DEPTH, M, K);
        __syncthreads();
        if (record + team < per_tile)
            multiply(sums, weight + (static_cast<size_t>(blockIdx.x) * per_tile + record + team) * RECORD,
                     shared_address(memory) + team * X_BYTES, rows);
    }
    __syncthreads();
    exchange(sums, kept, reinterpret_cast<float*>(memory));
    store(kept, y, blockIdx.x * ROWS + rows * 32 + team * 16, first_token, M, N);
}
