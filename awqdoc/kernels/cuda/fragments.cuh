// What the tensor-core steps share: the record of a weight, the dequantization of a word, and the product of a record.
//
// A record is a tile of 128 rows (output features n) by 128 k, in the order in which lanes use it:
//   8192 bytes  codes    [16-row tile 8][half of k 2][lane 32][k16 step 4] words of 8 codes
//    256 bytes  scales   FP16 [16-row tile 8][row 8][row, row + 8], for each group
//     64 bytes  zeros    [16-row tile 8][row 8], row in the low nibble and row + 8 in the high one, for each group
// The weight is the left operand of mma.m16n8k16, so that the batch is its narrow side: Y^T = W^T X^T.
//
// TOKENS (a multiple of 8), GROUP (128, 64 or 32) and ZEROS (1: zero points are stored; 0: all are 8) are given by the
// compiler's options.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;

constexpr int ROWS = 128, DEPTH = 128;
constexpr int GROUPS = DEPTH / GROUP;
constexpr int CODES = ROWS * DEPTH / 2, SCALES = 2 * ROWS, ZERO_POINTS = ZEROS ? ROWS / 2 : 0;
constexpr int RECORD = CODES + GROUPS * (SCALES + ZERO_POINTS);
constexpr int X_BYTES = TOKENS * DEPTH * 2;
// A warp multiplies two 16-row tiles by all tokens.
constexpr int TILES = TOKENS / 8, SUMS = 2 * TILES * 4;

#define DEVICE static __device__ __forceinline__

DEVICE u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

DEVICE u32 subtract(u32 a, u32 b) {  // two halves at once
    u32 difference;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
    return difference;
}

DEVICE float to_float(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

// (word & mask) | magic in one instruction.
DEVICE u32 and_or(u32 word, u32 mask, u32 magic) {
    u32 result;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(word), "r"(mask), "r"(magic));
    return result;
}

// The halves 1024 + z of row g and 64 + z of row g + 8, twice each: what `dequantize` subtracts.
DEVICE void zero_constants(u32 pair, u32& low, u32& high) {
    low = (0x6400u | (pair & 15)) * 0x10001u;
    high = (0x5400u | (pair & 0xf0)) * 0x10001u;
}

// Turn a word of 8 codes into the left fragment of an mma: q - z as halves, exactly, without a conversion.
// A code in the lowest bits of 0x6400 (1024) reads as 1024 + q; four bits higher, in 0x5400 (64), as 64 + q.
DEVICE void dequantize(u32 word, u32 low, u32 high, u32 (&a)[4]) {
    a[0] = subtract(and_or(word, 0x000f000f, 0x64006400), low);
    a[1] = subtract(and_or(word, 0x00f000f0, 0x54005400), high);
    word >>= 8;
    a[2] = subtract(and_or(word, 0x000f000f, 0x64006400), low);
    a[3] = subtract(and_or(word, 0x00f000f0, 0x54005400), high);
}

DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Where 8 halves of X (a token, a 16-byte chunk of its 128 k) lie in shared memory: two panels of 64 k, rows of 128 bytes,
// chunks exchanged by the token, so that the 8 rows that ldmatrix reads together lie in different banks. It is the order
// in which a tensor copy with 128-byte swizzle leaves them.
DEVICE u32 x_place(int token, int chunk) {
    return (chunk >> 3) * (TOKENS * 128) + token * 128 + (((chunk ^ token) & 7) << 4);
}

// The right fragments of two products (32 k from the `first_chunk`-th chunk on) for 8 tokens. What lies in the rows of
// tokens beyond M does not matter: a token's sums depend on its own row only, and theirs are not stored.
// `first_place` is x_place(lane & 7, lane >> 3): the places of the other chunks and tiles differ from it by constants.
DEVICE void load_x(u32 x, u32 first_place, int tile, int first_chunk, u32 (&b)[4]) {
    const u32 address = x + (first_place ^ (first_chunk & 4) << 4) + (first_chunk >> 3) * (TOKENS * 128) + tile * 1024;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(address) : "memory");
}

// Add a group's sums, times the scale of their row, to the sums of all groups: scales cost nothing before the mma.
DEVICE void add_scaled(float (&sums)[2][TILES][4], float (&group)[2][TILES][4], const u8* scales, int rows) {
    const int lane = threadIdx.x & 31;
    for (int sub = 0; sub < 2; sub++) {
        const u32 pair = reinterpret_cast<const u32*>(scales)[(2 * rows + sub) * 8 + lane / 4];
        const float low = to_float(pair & 0xffff), high = to_float(pair >> 16);
        for (int tile = 0; tile < TILES; tile++) {
            sums[sub][tile][0] += low * group[sub][tile][0];
            sums[sub][tile][1] += low * group[sub][tile][1];
            sums[sub][tile][2] += high * group[sub][tile][2];
            sums[sub][tile][3] += high * group[sub][tile][3];
        }
    }
}

// Multiply 32 rows of a record (the `rows`-th of four) by the tokens of `x` and add to the sums. Record and X lie in
// shared memory.
DEVICE void multiply(float (&sums)[2][TILES][4], const u8* record, u32 x, int rows) {
    const int lane = threadIdx.x & 31;
    const uint4* codes = reinterpret_cast<const uint4*>(record) + 2 * rows * 64 + lane;
    u32 words[2][8];  // of each 16-row tile, one for every 16 k
#pragma unroll
    for (int sub = 0; sub < 2; sub++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            *reinterpret_cast<uint4*>(&words[sub][4 * half]) = codes[64 * sub + 32 * half];
    const u8* scales = record + CODES;
    const u8* zeros = scales + GROUPS * SCALES;
    const u32 place = x_place(lane & 7, lane >> 3);
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
        float fresh[2][TILES][4] = {};
        u32 low[2], high[2];
#pragma unroll
        for (int sub = 0; sub < 2; sub++)
            zero_constants(ZEROS ? zeros[group * ZERO_POINTS + (2 * rows + sub) * 8 + lane / 4] : 0x88, low[sub], high[sub]);
#pragma unroll
        for (int pair = group * GROUP / 32; pair < (group + 1) * GROUP / 32; pair++) {  // 32 k at a time
            u32 a[2][2][4];
#pragma unroll
            for (int sub = 0; sub < 2; sub++) {
                dequantize(words[sub][2 * pair], low[sub], high[sub], a[sub][0]);
                dequantize(words[sub][2 * pair + 1], low[sub], high[sub], a[sub][1]);
            }
            u32 b[TILES][4];
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) load_x(x, place, tile, 4 * pair, b[tile]);
#pragma unroll
            for (int step = 0; step < 2; step++)
#pragma unroll
                for (int tile = 0; tile < TILES; tile++)
#pragma unroll
                    for (int sub = 0; sub < 2; sub++)
                        mma(fresh[sub][tile], a[sub][step], b[tile][2 * step], b[tile][2 * step + 1]);
        }
        add_scaled(sums, fresh, scales + group * SCALES, rows);
    }
}

// Two sums of neighbouring tokens as halves, exchanged among the lanes: a lane gives (row lane / 4, tokens 2 (lane % 4), + 1)
// of an 8 x 8 tile and gets (token lane / 4, rows 2 (lane % 4), + 1), which are neighbours in Y.
DEVICE u32 transposed_halves(float first, float second) {
    u32 halves;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(second), "f"(first));
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(halves));
    return halves;
}

// Store the finished sums of a 16-row tile: Y[token, n], FP16, tokens beyond M left out.
DEVICE void store(const float (&sums)[TILES][4], u16* y, int first_n, int first_token, int M, int N) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 pair = transposed_halves(sums[tile][2 * half], sums[tile][2 * half + 1]);
            const int token = first_token + tile * 8 + lane / 4, n = first_n + half * 8 + lane % 4 * 2;
            if (token < M) *reinterpret_cast<u32*>(y + static_cast<size_t>(token) * N + n) = pair;
        }
}

// Two teams of four warps have sums of the same 32 rows. Each gives the other its sums of one 16-row tile and keeps,
// complete, those of the other: team t keeps tile t. `shared` has 2 * SUMS * 64 floats.
DEVICE void exchange(const float (&sums)[2][TILES][4], float (&kept)[TILES][4], float* shared) {
    const int team = threadIdx.x / 128, thread = threadIdx.x % 128;
#pragma unroll
    for (int i = 0; i < SUMS / 2; i++)
        shared[(team * SUMS / 2 + i) * 128 + thread] = team ? sums[0][i / 4][i % 4] : sums[1][i / 4][i % 4];
    asm volatile("bar.sync 1, 256;" ::: "memory");
#pragma unroll
    for (int i = 0; i < SUMS / 2; i++)
        kept[i / 4][i % 4] = (team ? sums[1][i / 4][i % 4] : sums[0][i / 4][i % 4]) +
                             shared[((1 - team) * SUMS / 2 + i) * 128 + thread];
}
