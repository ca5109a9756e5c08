// Step 7: as many bytes in flight as the memory asks for.
//
// What changed since step 5: a warp of its own fetches, whole records with one bulk copy each (cp.async.bulk), up to
// STAGES records ahead, and the others only multiply. Nobody waits for all: a record is announced by a barrier in shared
// memory (mbarrier) that counts its bytes, and given back by another. One block on each SM takes an equal stripe of
// all records, tile after tile, and never lets the pipe run empty between tiles.
// Why: up to 16 tokens the time is that of the bytes, and bytes come as fast as there are requests under way.
// What it bought: the experiment `kernels`.
#include "hopper.cuh"
#include "stripes.cuh"

constexpr int STAGE = (X_BYTES + RECORD + 1023) / 1024 * 1024;

// One thread fetches the records [first, last), and with each the X that it is multiplied by. The weight does not depend on
// the kernel before this one, X does: where launches overlap, weight is on its way before X is there.
struct Fetch {
    const u8* weight;
    const TensorMap& x;
    u32 stages, full, empty;
    int first, last, per_tile;

    __device__ __forceinline__ void fetch_weight(int turn) const {
        const u32 slot = turn % STAGES, ready = full + 8 * slot;
        barrier_expect(ready, X_BYTES + RECORD);
        bulk_copy(stages + slot * STAGE + X_BYTES, weight + static_cast<size_t>(first + turn) * RECORD, RECORD, ready);
    }

    __device__ __forceinline__ void fetch_x(int turn) const {
        const u32 slot = turn % STAGES;
        copy_x(stages + slot * STAGE, x, (first + turn) % per_tile * DEPTH, 0, full + 8 * slot);
    }

    __device__ __forceinline__ void all() const {
        const int ahead = min(STAGES, last - first);
        for (int turn = 0; turn < ahead; turn++) fetch_weight(turn);
        asm volatile("griddepcontrol.wait;" ::: "memory");
        for (int turn = 0; turn < ahead; turn++) fetch_x(turn);
        for (int turn = ahead; turn < last - first; turn++) {
            barrier_wait(empty + 8 * (turn % STAGES), (turn / STAGES + 1) & 1);
            fetch_weight(turn);
            fetch_x(turn);
        }
    }
};

// Multiply those of the records [begin, end) that are this team's: two teams of four warps take them in turn.
DEVICE void consume(float (&sums)[2][TILES][4], u8* stages, u32 full, u32 empty, int begin, int end, int first) {
    const int warp = threadIdx.x / 32, rows = warp % 4, team = warp / 4;
    for (int turn = begin - first + ((begin - first + team) & 1); turn < end - first; turn += 2) {
        const int slot = turn % STAGES;
        u8* stage = stages + slot * STAGE;
        barrier_wait(full + 8 * slot, turn / STAGES & 1);
        multiply(sums, stage + X_BYTES, shared_address(stage), rows);
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * slot);
    }
}

extern "C" __global__ void __launch_bounds__(256 + 32, 1)
small_batch(const u8* __restrict__ weight, const __grid_constant__ TensorMap x, u16* __restrict__ y, u64* board, int M,
            int N, int K) {
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
        if (threadIdx.x == 256) Fetch{weight, x, shared_address(stages), full, empty, first, last, per_tile}.all();
        return;
    }
    const int helpers = count_helpers(records, per_tile);
    asm volatile("griddepcontrol.wait;" ::: "memory");  // the board and Y belong to the kernel before until it has ended
    for (int begin = first, end, turn = 0; begin < last; begin = end, turn ^= 1) {
        end = min(last, (begin / per_tile + 1) * per_tile);
        float sums[2][TILES][4] = {}, kept[TILES][4];
        consume(sums, stages, full, empty, begin, end, first);
        exchange(sums, kept, others[turn]);
        finish(kept, y, board, helpers, begin, end, per_tile, M, N);
    }
}
