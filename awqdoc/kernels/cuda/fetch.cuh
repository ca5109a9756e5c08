// A thread of its own fetches what the others multiply: units of TOGETHER records (of tiles that lie side by side, at the
// same k), and with each the part of X that it is multiplied by, up to STAGES units ahead.
//
// A tile here is TOGETHER * 128 rows by TOKENS tokens; a weight has `token_tiles` of them for the same rows, one after the
// other. Units are counted through all tiles, K / 128 of each.
#pragma once
#include "hopper.cuh"
//XRAY #include "xray.h"

constexpr int RECORD_SPACE = (RECORD + 127) / 128 * 128;
constexpr int STAGE = (X_BYTES + TOGETHER * RECORD_SPACE + 1023) / 1024 * 1024;

// True in one thread of a warp. Behind it ptxas knows that one thread is active, and needs no loop over active threads
// around each copy, as it does behind a comparison of threadIdx.x. With those loops this thread was what all others waited
// for: without them 28672 x 4096 takes 1.10 instead of 1.17 times the read floor of an H200 at 8 tokens.
DEVICE bool elected() {
    u32 yes;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}" : "=r"(yes));
    return yes;
}

// A unit: `row` counts TOGETHER * 128 rows, `batch` TOKENS tokens, `depth` 128 k.
struct Place {
    int row, batch, depth;
};

struct Fetch {
    const u8* weight;
    const TensorMap& x;
    u32 stages, full, empty;
    int first, last, per_tile, token_tiles;
    u64 policy;

    __device__ __forceinline__ Place place(int unit) const {
        const int tile = unit / per_tile;
        return {tile / token_tiles, tile % token_tiles, unit % per_tile};
    }

    // The place of the next unit, without divisions: with them this thread would be what all others wait for.
    __device__ __forceinline__ void advance(Place& at) const {
        if (++at.depth < per_tile) return;
        at.depth = 0;
        if (++at.batch < token_tiles) return;
        at.batch = 0;
        at.row++;
    }

    __device__ __forceinline__ void fetch_weight(const Place& at, u32 slot) const {
        //XRAY xray_mark<0>();
        const u32 ready = full + 8 * slot;
        const u8* record = weight + (static_cast<size_t>(TOGETHER * at.row) * per_tile + at.depth) * RECORD;
        barrier_expect(ready, X_BYTES + TOGETHER * RECORD);
#pragma unroll
        for (int side = 0; side < TOGETHER; side++)
            bulk_copy(stages + slot * STAGE + X_BYTES + side * RECORD_SPACE,
                      record + static_cast<size_t>(side) * per_tile * RECORD, RECORD, ready, policy);
    }

    __device__ __forceinline__ void fetch_x(const Place& at, u32 slot) const {
        const u32 to = stages + slot * STAGE, ready = full + 8 * slot;
        const int k = at.depth * DEPTH, token = at.batch * TOKENS;
        copy_panel(to, x, k, token, ready);
        copy_panel(to + X_BYTES / 2, x, k + 64, token, ready);
    }

    // The slot of a turn, once nobody needs what was in it.
    __device__ __forceinline__ u32 free_slot(int turn) const {
        const u32 slot = turn % STAGES;
        //XRAY xray_mark<6>();
        if (turn >= STAGES) barrier_wait(empty + 8 * slot, (turn / STAGES + 1) & 1);
        return slot;
    }

    // The weight does not depend on the kernel before this one, X does: where launches overlap, some weight is on its way
    // before X is there. Not all: copies are served in order, and X would wait behind them.
    __device__ __forceinline__ void all(int most_early) const {
        const int early = min(most_early, last - first);
        Place weights = place(first), xs = weights;
#pragma unroll 1
        for (int turn = 0; turn < early; turn++, advance(weights)) fetch_weight(weights, turn);
        asm volatile("griddepcontrol.wait;" ::: "memory");
#pragma unroll 1
        for (int turn = 0; turn < early; turn++, advance(xs)) fetch_x(xs, turn);
#pragma unroll 1
        for (int turn = early; turn < last - first; turn++, advance(weights)) {
            const u32 slot = free_slot(turn);
            fetch_weight(weights, slot);
            fetch_x(weights, slot);
        }
    }
};
