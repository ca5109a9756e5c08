// Step 6: Hopper's own tensor-core instruction, for more tokens.
//
// What changed since step 5: four warps together multiply 64 rows by all tokens (wgmma). The weight, dequantized, is the
// left operand and stays in registers; X is the right one and is read from shared memory once for 64 rows, not for 16.
// While one step multiplies, the next is dequantized. A thread of its own fetches (`fetch.cuh`). Two warpgroups have a
// tile of 128 rows each and share X. Blocks that share a tile share the adding too (`reduction.cuh`).
// Why: mma.sync reaches about 60 % of Hopper's rate, and at 64 tokens X for each 32 rows is more than shared memory gives.
// What it bought: the experiment `kernels`.
constexpr int TOGETHER = 2;  // tiles of 128 rows, one for each warpgroup
#include "reduction.cuh"

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

// The block's ring of stages, and the barriers that say that one is full or empty.
struct Ring {
    const u8* stages;
    u32 full, empty;

    __device__ __forceinline__ const u8* stage(int turn) const { return stages + turn % STAGES * STAGE; }
    __device__ __forceinline__ void wait(int turn) const { barrier_wait(full + 8 * (turn % STAGES), turn / STAGES & 1); }
    // Behind a finished wgmma that used what was read no __syncwarp is needed: it took the values of all lanes. With one
    // ptxas would let each wgmma wait for the one before. (racecheck does not know that, and wants one.)
    __device__ __forceinline__ void release(int turn) const {
        if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * (turn % STAGES));
    }
};

// What a warp has of its warpgroup's record in registers: codes of two halves of 64 rows; their first group.
struct Loaded {
    u32 words[2][8];
    Group groups[2];
    const u8* record;

    __device__ __forceinline__ void load(const u8* stage) {
        const int lane = threadIdx.x & 31, warp = threadIdx.x / 32 % 4;
        record = stage + X_BYTES + threadIdx.x / 128 * RECORD_SPACE;
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int quad = 0; quad < 2; quad++)
                *reinterpret_cast<uint4*>(&words[half][4 * quad]) =
                    reinterpret_cast<const uint4*>(record)[((4 * half + warp) * 2 + quad) * 32 + lane];
            groups[half].load(record, 0, 4 * half + warp);
        }
    }
};

// Multiply the unit that is loaded: 8 steps of 16 k, two halves of 64 rows. Meanwhile load the next, unless it is the last,
// so that the tensor cores need not wait for its first fragments (1 to 3 % at 64 tokens).
DEVICE void multiply_unit(float (&sums)[2][PER_THREAD], Loaded& now, const Ring& ring, int turn, bool last) {
    const u32 x = shared_address(ring.stage(turn));
    u32 a[2][2][4];
    Loaded next;
#pragma unroll
    for (int step = 0; step < 8; step++) {
        if (step > 0 && step % (GROUP / 16) == 0)
#pragma unroll
            for (int half = 0; half < 2; half++)
                now.groups[half].load(now.record, step / (GROUP / 16), 4 * half + threadIdx.x / 32 % 4);
        //XRAY if (step == 0) xray_mark<2>();
#pragma unroll
        for (int half = 0; half < 2; half++) now.groups[half].fragment(now.words[half][step], a[step % 2][half]);
        const u64 descriptor = x_descriptor(x + step / 4 * (TOKENS * 128)) + step % 4 * 2;
        wgmma_fence();
#pragma unroll
        for (int half = 0; half < 2; half++) wgmma(sums[half], a[step % 2][half], descriptor);
        wgmma_commit();
        //XRAY if (step == 0) xray_mark<3>();
        if (step == 7 && !last) {
            //XRAY xray_mark<6>();
            ring.wait(turn + 1);
            //XRAY xray_mark<1>();
            next.load(ring.stage(turn + 1));
        }
        wgmma_wait<1>();  // the step before is done: its fragments may be overwritten
        if (step == 0 && turn > 0) ring.release(turn - 1);  // nobody reads X of the unit before any more
    }
    now = next;
}

// Add the sums that the thread that fetches has brought from the blocks that follow.
DEVICE void add_partials(float4* sums, const Ring& ring, int helpers, int turn) {
    ring.release(turn - 1);
    for (int helper = 0; helper < helpers; helper++)
#pragma unroll
        for (int quad = 0; quad < QUADS; quad += AT_ONCE, turn++) {
            const float4* parts = reinterpret_cast<const float4*>(ring.stage(turn)) + threadIdx.x / 128 * AT_ONCE * 128;
            ring.wait(turn);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const float4 part = parts[i * 128 + threadIdx.x % 128];
                float4& sum = sums[quad + i];
                sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
            }
            __syncwarp();
            ring.release(turn);
        }
}

extern "C" __global__ void __cluster_dims__(1 + PAIRS, 1, 1) __launch_bounds__(3 * 128, 1)
warpgroups(const u8* __restrict__ weight, const __grid_constant__ TensorMap x, u16* __restrict__ y, float* partials,
           u32* flags, int M, int N, int K, int split) {
    //XRAY xray_begin();
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    u8* stages = aligned(memory);
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    const int token_tiles = (M + TOKENS - 1) / TOKENS;
    const Schedule schedule{split, K / DEPTH, N / (2 * ROWS) * token_tiles};
    const Exchange exchange{partials, flags};
    const int first = schedule.begin(blockIdx.x), last = schedule.begin(blockIdx.x + 1);

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
        const Fetch fetch{weight, x, shared_address(stages), full, empty, first, last, schedule.per_tile, token_tiles,
                          cache_policy(token_tiles == 1)};
        if (threadIdx.x < 288) {
            if (!elected()) return;
            fetch.all(split > 1 ? 1 : 3);
            fetch_partials(fetch, exchange, schedule.helpers(), last - first);
        } else if (!split && first % schedule.per_tile && threadIdx.x >= 320) {  // say, for a warpgroup, that its sums are left
            const int group = threadIdx.x / 32 % 2;
            asm volatile("bar.sync %0, 160;" ::"r"(1 + group) : "memory");
            proxy_fence();
            if (threadIdx.x % 32 == 0) exchange.raise(group, 0);
        }
        //XRAY xray_end();
        return;
    }
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const Ring ring{stages, full, empty};
    for (int begin = first, end; begin < last; begin = end) {
        const int tile = begin / schedule.per_tile;
        end = min(last, (tile + 1) * schedule.per_tile);
        float sums[2][PER_THREAD] = {};
        Loaded loaded;
        //XRAY xray_mark<6>();
        ring.wait(begin - first);
        //XRAY xray_mark<1>();
        loaded.load(ring.stage(begin - first));
        for (int unit = begin; unit < end; unit++) multiply_unit(sums, loaded, ring, unit - first, unit + 1 == end);
        wgmma_wait<0>();
        //XRAY xray_mark<4>();
        const Output output{y, tile / token_tiles * 2 * ROWS, tile % token_tiles * TOKENS, M, N};
        float4* quads = reinterpret_cast<float4*>(&sums[0][0]);
        if (PAIRS) {
            finish_half(quads, output, stages);
        } else if (split > 1) {
            finish_share(quads, output, exchange, split);
        } else if (begin % schedule.per_tile) {
            exchange.leave(quads);
            asm volatile("bar.arrive %0, 160;" ::"r"(1 + threadIdx.x / 128) : "memory");
        } else {
            if (end != (tile + 1) * schedule.per_tile)
                add_partials(quads, ring, schedule.helpers(), last - first);
            //XRAY xray_mark<5>();
#pragma unroll
            for (int quad = 0; quad < QUADS; quad++) output.store(quads[quad], quad);
        }
    }
    //XRAY xray_end();
}
