// How blocks that share a tile of 128 rows add up what each of them has: in a fixed order, so that every run gives the
// same bits.
//
// Each block takes an equal stripe of all records, tile after tile. So its first part may be the end of a tile, and its
// last part the beginning of one. Whoever has the beginning comes to it last, when those that have the rest, which is
// their first part, have mostly left their sums in memory. It adds them in order and stores the result.
//
// A sum travels with a mark, both in one word of 64 bits that arrives whole: so there is no flag to wait for before the
// sums can be asked for. The reader takes the mark away, for the next launch. Every block must be on an SM and have a
// record, or somebody waits for ever: no more blocks than SMs, nor than records.
#pragma once
#include "fragments.cuh"
//XRAY #include "xray.h"

DEVICE int stripe(u32 records, u32 block) { return records * block / gridDim.x; }

// How many of the following blocks have a part of the tile in which this block's stripe ends.
DEVICE int count_helpers(int records, int per_tile) {
    const int last = stripe(records, blockIdx.x + 1), tile_end = (last + per_tile - 1) / per_tile * per_tile;
    int helpers = 0;
    while (stripe(records, blockIdx.x + 1 + helpers) < tile_end) helpers++;
    return helpers;
}

// The words in which a block leaves its sums for another: [block][sum][thread of 256], of its own half each.
DEVICE u64* board_of(u64* board, int block) { return board + static_cast<size_t>(block) * (SUMS / 2) * 256 + threadIdx.x; }

DEVICE void leave(const float (&kept)[TILES][4], u64* board) {
    u64* mine = board_of(board, blockIdx.x);
#pragma unroll
    for (int i = 0; i < SUMS / 2; i++) {
        const u64 word = static_cast<u64>(__float_as_uint(kept[i / 4][i % 4])) << 32 | 1;
        asm volatile("st.relaxed.gpu.b64 [%0], %1;" ::"l"(mine + i * 256), "l"(word) : "memory");
    }
}

// Add the sums that the `helpers` blocks after this one have left, as many blocks at a time as registers allow.
DEVICE void add(float (&kept)[TILES][4], u64* board, int helpers) {
    constexpr int AT_ONCE = SUMS == 8 ? 4 : 64 / SUMS;
    for (int first = 1; first <= helpers; first += AT_ONCE) {
        u64 words[AT_ONCE][SUMS / 2];
        bool there;
        do {
            there = true;
#pragma unroll
            for (int other = 0; other < AT_ONCE; other++)
#pragma unroll
                for (int i = 0; i < SUMS / 2; i++)
                    if (first + other <= helpers) {
                        asm volatile("ld.relaxed.gpu.b64 %0, [%1];"
                                     : "=l"(words[other][i]) : "l"(board_of(board, blockIdx.x + first + other) + i * 256)
                                     : "memory");
                        there &= static_cast<u32>(words[other][i]) == 1;
                    }
        } while (!there);
#pragma unroll
        for (int other = 0; other < AT_ONCE; other++)
#pragma unroll
            for (int i = 0; i < SUMS / 2; i++)
                if (first + other <= helpers) {
                    kept[i / 4][i % 4] += __uint_as_float(words[other][i] >> 32);
                    board_of(board, blockIdx.x + first + other)[i * 256] = 0;
                }
    }
}

// Both teams hold the sums of the records [begin, end) of a tile: store them if that is all of it, leave them for the
// block that has the beginning, or be this block and add those of the next `helpers` blocks.
DEVICE void finish(float (&kept)[TILES][4], u16* y, u64* board, int helpers, int begin, int end, int per_tile, int M, int N) {
    const int tile = begin / per_tile, warp = threadIdx.x / 32;
    if (begin != tile * per_tile) return leave(kept, board);
    if (end != (tile + 1) * per_tile) add(kept, board, helpers);
    //XRAY xray_mark<5>();
    store(kept, y, tile * ROWS + (warp % 4) * 32 + (warp / 4) * 16, 0, M, N);
}
