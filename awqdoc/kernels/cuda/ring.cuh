// A ring of records in shared memory, filled by cp.async: STAGES records are under way or waiting while one is multiplied.
#pragma once
#include "fragments.cuh"
//XRAY #include "xray.h"

constexpr int STAGE = (RECORD + X_BYTES + 127) / 128 * 128;

// 16 bytes from memory to shared memory, past the registers; `evict_first`: they will not be wanted again. Not on Hopper:
// there ptxas 13.0 takes the hint of some of these copies from a register that nobody wrote, and the GPU stops with an
// illegal instruction. (Bulk copies and loads with a hint compile as they should.)
DEVICE void copy_weight(u32 to, const u8* from, u64 evict_first) {
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#else
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(evict_first)
                 : "memory");
#endif
}

DEVICE void copy_x(u32 to, const u16* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Start copying a record, and the part of X that it is multiplied by, with 256 threads.
DEVICE void start(u32 stage, const u8* record, const u16* x, int first_k, int first_token, int M, int K, u64 policy) {
    for (int i = threadIdx.x; i < RECORD / 16; i += 256) copy_weight(stage + 16 * i, record + 16 * i, policy);
#pragma unroll
    for (int i = threadIdx.x; i < TOKENS * 16; i += 256) {
        const int token = first_token + i / 16, chunk = i % 16;
        if (token < M)
            copy_x(stage + RECORD + x_place(i / 16, chunk), x + static_cast<size_t>(token) * K + first_k + chunk * 8);
    }
}

// The block's position: it has records [first, last), of which the first `started` are under way or done.
struct Ring {
    u8* memory;
    int first, last, started;

    // Start the copies of the records before the `wanted`-th, one group each; empty groups beyond the last keep count.
    __device__ __forceinline__ void start_up_to(int wanted, const u8* weight, const u16* x, int first_token, int M, int K) {
        u64 policy;
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        for (; started < wanted; started++) {
            const int record = first + started;
            //XRAY if (record < last) xray_mark<0>();
            if (record < last)
                start(shared_address(memory) + started % STAGES * STAGE, weight + static_cast<size_t>(record) * RECORD, x,
                      record % (K / DEPTH) * DEPTH, first_token, M, K, policy);
            asm volatile("cp.async.commit_group;" ::: "memory");
        }
    }

    // Multiply the records [begin, end), two at a time: each group of four warps has one. Meanwhile copy what follows.
    __device__ __forceinline__ void multiply_part(float (&sums)[2][TILES][4], const u8* weight, const u16* x, int begin,
                                                  int end, int first_token, int M, int K) {
        const int warp = threadIdx.x / 32;
        for (int record = begin; record < end; record += 2) {
            // STAGES groups are started beyond the last round's records, at most two: all but the newest STAGES - 4 done
            // means that this round's two are.
            //XRAY xray_mark<6>();
            asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 4) : "memory");
            __syncthreads();
            //XRAY xray_mark<1>();
            start_up_to(record - first + STAGES, weight, x, first_token, M, K);
            const int mine = record + warp / 4;
            u8* stage = memory + (mine - first) % STAGES * STAGE;
            //XRAY xray_mark<2>();
            if (mine < end) multiply(sums, stage, shared_address(stage) + RECORD, warp % 4);
        }
    }
};
