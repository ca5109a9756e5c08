// Step 7: as many bytes in flight as the memory asks for.
//
// What changed since step 5: a warp of its own fetches, whole records with one bulk copy each (cp.async.bulk), up to
// STAGES records ahead, and the others only multiply. Nobody waits for all: a record is announced by a barrier in shared
// memory (mbarrier) that counts its bytes, and given back by another. One block on each SM takes an equal stripe of
// all records, tile after tile, and never lets the pipe run empty between tiles.
// Why: up to 16 tokens the time is that of the bytes, and bytes come as fast as there are requests under way.
// What it bought: the experiment `kernels`.
constexpr int TOGETHER = 1;
#include "fetch.cuh"
#include "stripes.cuh"

// Multiply those of the records [begin, end) that are this team's: two teams of four warps take them in turn.
DEVICE void consume(float (&sums)[2][TILES][4], u8* stages, u32 full, u32 empty, int begin, int end, int first) {
    const int warp = threadIdx.x / 32, rows = warp % 4, team = warp / 4;
    for (int turn = begin - first + ((begin - first + team) & 1); turn < end - first; turn += 2) {
        const int slot = turn % STAGES;
        u8* stage = stages + slot * STAGE;
        //XRAY xray_mark<6>();
        barrier_wait(full + 8 * slot, turn / STAGES & 1);
        //XRAY xray_mark<1>();
        multiply(sums, stage + X_BYTES, shared_address(stage), rows);
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * slot);
    }
}

extern "C" __global__ void __launch_bounds__(256 + 32, 1)
small_batch(const u8* __restrict__ weight, const __grid_constant__ TensorMap x, u16* __restrict__ y, u64* board, int M,
            int N, int K) {
    //XRAY xray_begin();
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ float others[2][SUMS * 128];  // two in turn: a team may be one part ahead of the other
    u8* stages = aligned(memory);
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    const int per_tile = K / DEPTH, records = N / ROWS * per_tile;
    const int first = stripe(records, blockIdx.x), last = stripe(records, blockIdx.x + 1);

    if (threadIdx.x == 0) {
        for (int slot = 0; slot < STAGES; slot++) {
            barrier_init(full + 8 * slot, 1);
            barrier_init(empty + 8 * slot, 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;");

    if (threadIdx.x >= 256) {
        const Fetch fetch{weight, x, shared_address(stages), full, empty, first, last, per_tile, 1, cache_policy(true)};
        if (elected()) fetch.all(EARLY);
        //XRAY xray_end();
        return;
    }
    const int helpers = count_helpers(records, per_tile);
    asm volatile("griddepcontrol.wait;" ::: "memory");  // the board and Y belong to the kernel before until it has ended
    for (int begin = first, end, turn = 0; begin < last; begin = end, turn ^= 1) {
        end = min(last, (begin / per_tile + 1) * per_tile);
        float sums[2][TILES][4] = {}, kept[TILES][4];
        consume(sums, stages, full, empty, begin, end, first);
        //XRAY xray_mark<4>();
        exchange(sums, kept, others[turn]);
        finish(kept, y, board, helpers, begin, end, per_tile, M, N);
    }
    //XRAY xray_end();
}
