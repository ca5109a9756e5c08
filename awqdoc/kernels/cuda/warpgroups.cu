// Step 6: Hopper's own tensor-core instruction, for more tokens.
//
// What changed since step 5: four warps together multiply 64 rows by all tokens (wgmma). The weight, dequantized, is the
// left operand and stays in registers; X is the right one and is read from shared memory once for 64 rows, not for 16.
// While one step multiplies, the next is dequantized. A thread of its own fetches (`hopper.cuh`). Two warpgroups have a
// tile of 128 rows each and share X.
// Why: mma.sync reaches about 60 % of Hopper's rate, and at 64 tokens X for each 32 rows is more than shared memory gives.
// What it bought: the experiment `kernels`.
#include "wgmma.cuh"

constexpr int RECORD_SPACE = (RECORD + 127) / 128 * 128;
constexpr int STAGE = (X_BYTES + 2 * RECORD_SPACE + 1023) / 1024 * 1024;

DEVICE int stripe(u32 units, u32 block) { return units * block / gridDim.x; }

DEVICE u32 times(u32 a, u32 b) {  // two halves at once
    u32 product;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}

// What dequantizing 64 rows takes of a group: two zero constants and two scales, twice each, for rows g and g + 8.
struct Group {
    u32 zeros[2], scales[2];

    __device__ __forceinline__ void load(const u8* record, int group, int tile) {
        const int lane = threadIdx.x & 31;
        const u8* scale = record + CODES + group * SCALES;
        const u8* zero = record + CODES + GROUPS * SCALES + group * ZERO_POINTS;
        zero_constants(ZEROS ? zero[tile * 8 + lane / 4] : 0x88, zeros[0], zeros[1]);
        const u32 pair = reinterpret_cast<const u32*>(scale)[tile * 8 + lane / 4];
        scales[0] = (pair & 0xffff) * 0x10001u;
        scales[1] = (pair >> 16) * 0x10001u;
    }

    __device__ __forceinline__ void fragment(u32 word, u32 (&a)[4]) const {
        dequantize(word, zeros[0], zeros[1], a);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = times(a[i], scales[i % 2]);
    }
};

// Fetch units for the block's ring: as in small_batch.cu, but the records of two tiles.
struct Fetch {
    const u8* weight;
    const TensorMap& x;
    u32 stages, full;
    int first, per_tile;

    __device__ __forceinline__ void fetch_weight(int turn) const {
        const int slot = turn % STAGES, tile = (first + turn) / per_tile, depth = (first + turn) % per_tile;
        const u32 ready = full + 8 * slot;
        barrier_expect(ready, X_BYTES + 2 * RECORD);
        for (int group = 0; group < 2; group++)
            bulk_copy(stages + slot * STAGE + X_BYTES + group * RECORD_SPACE,
                      weight + (static_cast<size_t>(2 * tile + group) * per_tile + depth) * RECORD, RECORD, ready);
    }

    __device__ __forceinline__ void fetch_x(int turn) const {
        const int slot = turn % STAGES;
        copy_x(stages + slot * STAGE, x, (first + turn) % per_tile * DEPTH, 0, full + 8 * slot);
    }
};

// Multiply the 128 rows of a record: 8 steps of 16 k, two halves of 64 rows. `released`: the barrier of the stage before,
// which nobody reads any more once this record's first step is under way.
DEVICE void multiply_record(float (&sums)[2][PER_THREAD], const u8* record, u32 x, u32 released) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 % 4;
    u32 words[2][8];
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int quad = 0; quad < 2; quad++)
            *reinterpret_cast<uint4*>(&words[half][4 * quad]) =
                reinterpret_cast<const uint4*>(record)[((4 * half + warp) * 2 + quad) * 32 + lane];
    u32 a[2][2][4];
    Group groups[2];
#pragma unroll
    for (int step = 0; step < 8; step++) {
        if (step % (GROUP / 16) == 0)
#pragma unroll
            for (int half = 0; half < 2; half++) groups[half].load(record, step / (GROUP / 16), 4 * half + warp);
#pragma unroll
        for (int half = 0; half < 2; half++) groups[half].fragment(words[half][step], a[step % 2][half]);
        const u64 descriptor = x_descriptor(x + step / 4 * (TOKENS * 128)) + step % 4 * 2;
        wgmma_fence();
#pragma unroll
        for (int half = 0; half < 2; half++) wgmma(sums[half], a[step % 2][half], descriptor);
        wgmma_commit();
        wgmma_wait<1>();  // the step before is done: its fragments may be overwritten
        if (step == 0 && released && lane == 0) barrier_arrive(released);
    }
}

// Threads of one warpgroup wait for each other.
DEVICE void warpgroup_sync() { asm volatile("bar.sync %0, 128;" ::"r"(1 + threadIdx.x / 128) : "memory"); }

// Where a block's warpgroup leaves its sums: [block][warpgroup][4 sums][thread].
DEVICE float4* left_by(float* partials, int block) {
    return reinterpret_cast<float4*>(partials) +
           (static_cast<size_t>(block) * 2 + threadIdx.x / 128) * (2 * PER_THREAD / 4) * 128 + threadIdx.x % 128;
}

// As `finish` in stripes.cuh, but with so many sums that a flag for all of them is cheaper than a mark in each.
DEVICE void finish(float (&sums)[2][PER_THREAD], u16* y, float* partials, u32* flags, int units, int begin, int end,
                   int per_tile, int M, int N) {
    const int group = threadIdx.x / 128, tile = begin / per_tile, tile_end = (tile + 1) * per_tile;
    float* flat = &sums[0][0];
    if (begin != tile * per_tile) {
        float4* mine = left_by(partials, blockIdx.x);
#pragma unroll
        for (int i = 0; i < 2 * PER_THREAD / 4; i++) __stcg(mine + i * 128, reinterpret_cast<float4*>(flat)[i]);
        __threadfence();
        warpgroup_sync();
        if (threadIdx.x % 128 == 0)
            asm volatile("st.release.gpu.b32 [%0], 1;" ::"l"(flags + 2 * blockIdx.x + group) : "memory");
        return;
    }
    for (int other = blockIdx.x + 1; end != tile_end && stripe(units, other) < tile_end; other++) {
        if (threadIdx.x % 128 == 0) {
            u32 raised = 0;
            while (!raised) asm volatile("ld.acquire.gpu.b32 %0, [%1];" : "=r"(raised) : "l"(flags + 2 * other + group) : "memory");
            flags[2 * other + group] = 0;
        }
        warpgroup_sync();
        const float4* theirs = left_by(partials, other);
#pragma unroll
        for (int i = 0; i < 2 * PER_THREAD / 4; i++) {
            const float4 part = __ldcg(theirs + i * 128);
            flat[4 * i] += part.x, flat[4 * i + 1] += part.y, flat[4 * i + 2] += part.z, flat[4 * i + 3] += part.w;
        }
    }
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int i = 0; i < PER_THREAD / 2; i++) {  // pairs of tokens of one row
            const u32 pair = transposed_halves(sums[half][2 * i], sums[half][2 * i + 1]);
            const int token = i / 2 * 8 + lane / 4;
            const int n = (2 * tile + group) * ROWS + half * 64 + warp * 16 + i % 2 * 8 + lane % 4 * 2;
            if (token < M) *reinterpret_cast<u32*>(y + static_cast<size_t>(token) * N + n) = pair;
        }
}

extern "C" __global__ void __launch_bounds__(3 * 128, 1)
warpgroups(const u8* __restrict__ weight, const __grid_constant__ TensorMap x, u16* __restrict__ y, float* partials,
           u32* flags, int M, int N, int K) {
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    u8* stages = aligned(memory);
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    const int per_tile = K / DEPTH, units = N / (2 * ROWS) * per_tile;  // a unit: the records of two tiles, at the same k
    const int first = stripe(units, blockIdx.x), last = stripe(units, blockIdx.x + 1);

    if (threadIdx.x == 0) {
        for (int slot = 0; slot < STAGES; slot++) {
            barrier_init(full + 8 * slot, 1);
            barrier_init(empty + 8 * slot, 8);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;");

    if (threadIdx.x >= 256) {  // a warpgroup, because only a warpgroup can give registers to the others
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x > 256) return;
        const Fetch fetch{weight, x, shared_address(stages), full, first, per_tile};
        const int ahead = min(STAGES, last - first);
        for (int turn = 0; turn < ahead; turn++) fetch.fetch_weight(turn);
        asm volatile("griddepcontrol.wait;" ::: "memory");
        for (int turn = 0; turn < ahead; turn++) fetch.fetch_x(turn);
        for (int turn = ahead; turn < last - first; turn++) {
            barrier_wait(empty + 8 * (turn % STAGES), (turn / STAGES + 1) & 1);
            fetch.fetch_weight(turn);
            fetch.fetch_x(turn);
        }
        return;
    }
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    u32 released = 0;
    for (int begin = first, end; begin < last; begin = end) {
        end = min(last, (begin / per_tile + 1) * per_tile);
        float sums[2][PER_THREAD] = {};
        for (int unit = begin; unit < end; unit++) {
            const int turn = unit - first, slot = turn % STAGES;
            const u8* stage = stages + slot * STAGE;
            barrier_wait(full + 8 * slot, turn / STAGES & 1);
            multiply_record(sums, stage + X_BYTES + threadIdx.x / 128 * RECORD_SPACE, shared_address(stage), released);
            released = empty + 8 * slot;
        }
        wgmma_wait<0>();
        finish(sums, y, partials, flags, units, begin, end, per_tile, M, N);
    }
}
