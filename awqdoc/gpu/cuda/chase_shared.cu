// Latency and bank conflicts of shared memory: each lane of a warp goes to and fro between two words, which hold each
// other's address. Neighbouring lanes' words are `stride` words apart. A lane does so in CHAINS places at a time: with
// 1 each load waits for the one before it, with more the loads queue for the banks.
#include "probe.cuh"

constexpr int ARRAY = 32 * 32;  // words: room for 32 lanes at a stride of 32
constexpr int MOST_SAMPLES = 255;

DEVICE u32 follow(u32 address) {
    asm volatile("ld.shared.u32 %0, [%0];" : "+r"(address)::"memory");
    return address;
}

extern "C" __global__ void __launch_bounds__(32) chase_shared(int stride, int samples, u64* cycles, u32* last) {
    __shared__ u32 words[CHAINS][2][ARRAY];
    __shared__ u64 taken[MOST_SAMPLES];
    const int word = threadIdx.x * stride;
    u32 at[CHAINS];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) {
        at[chain] = shared_address(&words[chain][0][word]);
        words[chain][0][word] = shared_address(&words[chain][1][word]);
        words[chain][1][word] = at[chain];
    }
    __syncwarp();
#pragma unroll 1
    for (int sample = 0; sample < samples; sample++) {
        u32 all = 0;
#pragma unroll
        for (int chain = 0; chain < CHAINS; chain++) all |= at[chain];
        const u64 start = now_with(all);
#pragma unroll
        for (int i = 0; i < LOADS; i++)
#pragma unroll
            for (int chain = 0; chain < CHAINS; chain++) at[chain] = follow(at[chain]);
        all = 0;
#pragma unroll
        for (int chain = 0; chain < CHAINS; chain++) all |= at[chain];
        const u64 end = now_with(all);
        if (threadIdx.x == 0) taken[sample] = end - start;
    }
    __syncwarp();
    for (int sample = threadIdx.x; sample < samples; sample += 32) cycles[sample] = taken[sample];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)  // as a place in `words`
        last[chain * 32 + threadIdx.x] = (at[chain] - shared_address(words)) / 4;
}
