// The opponent at its best: FP16 with one token, Y = W x, with W [N, K] as torch.nn.Linear stores it.
//
// With one token a product is a stream of weights, and what counts is that it never stops, also not between two launches.
// So this is step 7 without codes: each of an SM's warps has a ring of its own, filled by bulk copies, and waits for nobody;
// and the ring is filled before the kernel ahead has ended. A row of W is one warp's, in PIECES copies.
// What it bought: the experiments `kernels` and `decode`.
#define GROUP 128  // of the records that the headers know; there are none here
#define ZEROS 0
#define TOKENS 8
constexpr int TOGETHER = 1;
#include "fetch.cuh"

constexpr int WARPS = 8, PIECE = 1024, BYTES = 2 * PIECE, K = PIECES * PIECE;

DEVICE float2 pair(u32 halves) { return {to_float(halves & 0xffff), to_float(halves >> 16)}; }

DEVICE void multiply(float (&sums)[2], u32 w, u32 x) {
    const float2 a = pair(w), b = pair(x);
    sums[0] += a.x * b.x, sums[1] += a.y * b.y;
}

// A warp's ring, and the rows that it has: every WARPS-th of the block's.
struct Stream {
    const u16* weight;
    u32 ring, full;
    int first_row;
    u64 policy;

    __device__ __forceinline__ const u16* piece(int turn) const {
        return weight + static_cast<size_t>(first_row + turn / PIECES * WARPS) * K + turn % PIECES * PIECE;
    }

    __device__ __forceinline__ void fetch(int turn) const {
        const int slot = turn % STAGES;
        barrier_expect(full + 8 * slot, BYTES);
        bulk_copy(ring + slot * BYTES, piece(turn), BYTES, full + 8 * slot, policy);
    }
};

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
fp16_stream(const u16* __restrict__ weight, const u16* x, u16* __restrict__ y, int N) {
    extern __shared__ __align__(128) u8 memory[];  // the rings, then x
    __shared__ __align__(8) u64 barriers[WARPS * STAGES + 1];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u8* ring = memory + warp * STAGES * BYTES;
    u8* inputs = memory + WARPS * STAGES * BYTES;
    const u32 full = shared_address(barriers + warp * STAGES), x_there = shared_address(barriers + WARPS * STAGES);
    const int begin = static_cast<u64>(N) * blockIdx.x / gridDim.x, end = static_cast<u64>(N) * (blockIdx.x + 1) / gridDim.x;
    const int turns = max(0, end - begin - warp + WARPS - 1) / WARPS * PIECES;
    const Stream stream{weight, shared_address(ring), full, begin + warp, cache_policy(true)};

    if (lane == 0) {
        for (int slot = 0; slot < STAGES; slot++) barrier_init(full + 8 * slot, 1);
        if (warp == 0) barrier_init(x_there, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;");
    // Not more than the ring: weights brought to the L2 cache as well were what the kernel ahead then had to wait for.
    if (elected())
        for (int turn = 0; turn < min(STAGES, turns); turn++) stream.fetch(turn);
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (threadIdx.x == 0) {
        barrier_expect(x_there, 2 * K);
        bulk_copy(shared_address(inputs), x, 2 * K, x_there, cache_policy(false));
    }
    barrier_wait(x_there, 0);

    float sums[2] = {};
    for (int turn = 0; turn < turns; turn++) {
        const int slot = turn % STAGES, piece = turn % PIECES;
        const uint4* w = reinterpret_cast<const uint4*>(ring + slot * BYTES) + lane;
        const uint4* a = reinterpret_cast<const uint4*>(inputs + piece * BYTES) + lane;
        barrier_wait(full + 8 * slot, turn / STAGES & 1);
#pragma unroll
        for (int i = 0; i < PIECE / 8; i += 32) {
            multiply(sums, w[i].x, a[i].x);
            multiply(sums, w[i].y, a[i].y);
            multiply(sums, w[i].z, a[i].z);
            multiply(sums, w[i].w, a[i].w);
        }
        __syncwarp();
        if (turn + STAGES < turns && elected()) stream.fetch(turn + STAGES);
        if (piece == PIECES - 1) {
            float sum = sums[0] + sums[1];
            for (int other = 16; other; other /= 2) sum += __shfl_xor_sync(0xffffffff, sum, other);
            if (lane == 0) asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y[begin + warp + turn / PIECES * WARPS]) : "f"(sum));
            sums[0] = sums[1] = 0;
        }
    }
}
