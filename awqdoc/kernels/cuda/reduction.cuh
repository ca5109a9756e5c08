// How blocks that share a tile of 256 rows add up what their warpgroups have: in a fixed order, so that every run gives
// the same bits. There are three ways to cut the units among blocks (`Schedule`), and each has its own:
//
// - Stripes: an equal number of units for each block, whether or not it ends where a tile ends. As in stripes.cuh, who has
//   a tile's beginning comes to it last, adds what the others left and stores. Their sums come through the ring. For
//   large layers.
// - Split: `split` blocks have an equal part of one tile each, and are ready at the same time. Each adds up and stores its
//   own share of the tile, so that nobody waits while one adds for all. For layers with fewer tiles than SMs.
// - Pairs: split in two, and the two are a cluster, which write straight into each other's shared memory: that saves some
//   4 us of 25. Clusters of more blocks were slower: one must lie in one GPC, and it seems that not all have 16 SMs.
//
// Every block must be on an SM, or somebody waits for ever: no more blocks than SMs, nor than units.
//
// PAIRS (1: the blocks are in clusters of two) is given by the compiler's options. The rest is not: where the compiler knew
// `split` too, it made a wgmma of 64 tokens wait for the one before, which cost up to a third.
#pragma once
#include "fetch.cuh"
#include "wgmma.cuh"

constexpr int QUADS = 2 * PER_THREAD / 4;  // sums of a thread, four at a time: of 8 tokens and 16 rows in a warp
constexpr int MOST_SPLIT = 8;
constexpr int AT_ONCE = 4;  // quads that travel together

struct Schedule {
    int split, per_tile, tiles;  // `split` 0: stripes, 1: whole tiles

    __device__ __forceinline__ int begin(u32 block) const {
        if (split) return block / split * per_tile + block % split * per_tile / split;
        return static_cast<u32>(tiles * per_tile) * block / gridDim.x;
    }

    // Stripes: how many of the following blocks have a part of the tile of which this one has the beginning. (No loop: one in
    // a kernel's first lines made ptxas take addresses in its main loop for different from lane to lane, which cost 13 %.)
    __device__ __forceinline__ int helpers() const {
        const u32 units = tiles * per_tile, last = begin(blockIdx.x + 1), tile_end = (last + per_tile - 1) / per_tile * per_tile;
        if (split || begin(blockIdx.x) + per_tile > tile_end) return 0;
        return (tile_end * gridDim.x + units - 1) / units - 1 - blockIdx.x;
    }
};

// Y, and where in it a tile is.
struct Output {
    u16* y;
    int first_n, first_token, M, N;

    // Store a quad of a thread of each of the 32 lanes: two rows' sums of two tokens.
    __device__ __forceinline__ void store(float4 sums, int quad) const {
        const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
        const int token = first_token + quad % (PER_THREAD / 4) * 8 + lane / 4;
        const int n = first_n + warp / 4 * ROWS + quad / (PER_THREAD / 4) * 64 + warp % 4 * 16 + lane % 4 * 2;
        u32* to = reinterpret_cast<u32*>(y + static_cast<size_t>(token) * N + n);
        const u32 pairs[2] = {transposed_halves(sums.x, sums.y), transposed_halves(sums.z, sums.w)};
        if (token < M) to[0] = pairs[0], to[4] = pairs[1];
    }
};

// Bulk copies go to memory on a way of their own (a proxy); this puts them in order with loads and stores.
DEVICE void proxy_fence() { asm volatile("fence.proxy.async;" ::: "memory"); }

// Memory in which blocks leave their sums, and flags that say that they are there. Who waits for a flag lowers it.
struct Exchange {
    float* partials;  // [block][warpgroup][quad][thread]
    u32* flags;       // [block][warpgroup][who may read]

    __device__ __forceinline__ float4* left_by(int block, int group) const {
        return reinterpret_cast<float4*>(partials) + (static_cast<size_t>(block) * 2 + group) * QUADS * 128;
    }

    __device__ __forceinline__ void leave(const float4* sums) const {
        float4* mine = left_by(blockIdx.x, threadIdx.x / 128) + threadIdx.x % 128;
#pragma unroll
        for (int quad = 0; quad < QUADS; quad++) __stcg(mine + quad * 128, sums[quad]);
    }

    __device__ __forceinline__ u32* flag(int block, int group, int reader) const {
        return flags + (block * 2 + group) * MOST_SPLIT + reader;
    }

    __device__ __forceinline__ void raise(int group, int reader) const {
        __threadfence();
        asm volatile("st.release.gpu.b32 [%0], 1;" ::"l"(flag(blockIdx.x, group, reader)) : "memory");
    }

    __device__ __forceinline__ void wait_for(int block, int group, int reader) const {
        u32* there = flag(block, group, reader);
        u32 raised = 0;
        while (!raised) asm volatile("ld.acquire.gpu.b32 %0, [%1];" : "=r"(raised) : "l"(there) : "memory");
        *there = 0;
    }
};

// Stripes, in the thread that fetches: behind the last unit, what the next blocks have of its tile comes through the ring.
DEVICE void fetch_partials(const Fetch& fetch, const Exchange& exchange, int helpers, int turn) {
    for (int helper = 1; helper <= helpers; helper++) {
        const int other = blockIdx.x + helper;
        for (int group = 0; group < 2; group++) exchange.wait_for(other, group, 0);
        proxy_fence();
#pragma unroll 1
        for (int quad = 0; quad < QUADS; quad += AT_ONCE, turn++) {
            const u32 slot = fetch.free_slot(turn), ready = fetch.full + 8 * slot;
            barrier_expect(ready, 2 * AT_ONCE * 128 * 16);
            for (int group = 0; group < 2; group++)
                bulk_copy(fetch.stages + slot * STAGE + group * AT_ONCE * 128 * 16, exchange.left_by(other, group) + quad * 128,
                          AT_ONCE * 128 * 16, ready, fetch.policy);
        }
    }
}

// Split: leave the sums, then add up this block's share of the quads.
DEVICE void finish_share(const float4* sums, const Output& output, const Exchange& exchange, int split) {
    const int part = blockIdx.x % split, first_block = blockIdx.x - part, group = threadIdx.x / 128, thread = threadIdx.x % 128;
    exchange.leave(sums);
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (thread < split) {
        exchange.raise(group, thread);
        exchange.wait_for(first_block + thread, group, part);
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    //XRAY xray_mark<5>();
#pragma unroll 2
    for (int quad = QUADS * part / split; quad < QUADS * (part + 1) / split; quad++) {
        float4 parts[MOST_SPLIT];
#pragma unroll
        for (int other = 0; other < MOST_SPLIT; other++)
            if (other < split) parts[other] = __ldcg(exchange.left_by(first_block + other, group) + quad * 128 + thread);
        float4 sum = parts[0];
#pragma unroll
        for (int other = 1; other < MOST_SPLIT; other++)
            if (other < split)
                sum.x += parts[other].x, sum.y += parts[other].y, sum.z += parts[other].z, sum.w += parts[other].w;
        output.store(sum, quad);
    }
}

// Wait for all threads of the cluster that have not ended; what they wrote before can be read behind this.
DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

DEVICE void store_remote(u32 address, int block, float4 value) {  // to the shared memory of a block of the cluster
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(there), "f"(value.x), "f"(value.y), "f"(value.z),
                 "f"(value.w)
                 : "memory");
}

// Pairs: the second half of the quads is the second block's to add, the first half the first's. What the other adds is
// sent into what was its ring.
DEVICE void finish_half(const float4* sums, const Output& output, u8* memory) {
    static_assert(QUADS / 2 * 256 * 16 <= STAGES * STAGE, "the sums fit into the ring");
    const bool second = blockIdx.x % 2;
    float4* from_other = reinterpret_cast<float4*>(memory) + threadIdx.x;
    cluster_barrier();  // nobody needs his ring any more
#pragma unroll
    for (int i = 0; i < QUADS / 2; i++)
        store_remote(shared_address(from_other + i * 256), !second, second ? sums[i] : sums[QUADS / 2 + i]);
    cluster_barrier();
    //XRAY xray_mark<5>();
#pragma unroll
    for (int i = 0; i < QUADS / 2; i++) {
        const float4 mine = second ? sums[QUADS / 2 + i] : sums[i], other = from_other[i * 256];
        output.store({mine.x + other.x, mine.y + other.y, mine.z + other.z, mine.w + other.w}, second * (QUADS / 2) + i);
    }
}
