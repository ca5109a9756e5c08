// Step 5: equal work for every SM.
//
// What changed since step 4: one block on each SM, and each takes an equal stripe of all records, whether or not it ends
// where a tile ends; the copies run on over the end. Blocks that share a tile add their sums (`stripes.cuh`).
// Why: 32 tiles on 132 SMs leave 100 of them idle, and 224 tiles make a second wave in which 40 are.
// What it bought: the experiment `kernels`.
#include "ring.cuh"
#include "stripes.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
stripes(const u8* __restrict__ weight, const u16* __restrict__ x, u16* __restrict__ y, u64* board, int M, int N,
        int K) {
    //XRAY xray_begin();
    extern __shared__ __align__(128) u8 memory[];
    __shared__ float others[2][SUMS * 128];  // two in turn: a team may be one part ahead of the other
    const int per_tile = K / DEPTH, records = N / ROWS * per_tile, helpers = count_helpers(records, per_tile);
    Ring ring{memory, stripe(records, blockIdx.x), stripe(records, blockIdx.x + 1), 0};
    ring.start_up_to(STAGES, weight, x, 0, M, K);
    for (int begin = ring.first, end, turn = 0; begin < ring.last; begin = end, turn ^= 1) {
        end = min(ring.last, (begin / per_tile + 1) * per_tile);
        float sums[2][TILES][4] = {}, kept[TILES][4];
        ring.multiply_part(sums, weight, x, begin, end, 0, M, K);
        //XRAY xray_mark<4>();
        exchange(sums, kept, others[turn]);
        finish(kept, y, board, helpers, begin, end, per_tile, M, N);
    }
    //XRAY xray_end();
}
