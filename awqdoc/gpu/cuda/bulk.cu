// Bandwidth over bytes in flight: one thread of each block keeps `slots` bulk copies of `chunk` bytes under way. As
// soon as one has arrived the next is asked for, in its place. In the end the chunks that are there are added up.
#include "probe.cuh"

constexpr int MOST_SLOTS = 8;

// A block's slice is `chunks` chunks, `slots` of them or more.
extern "C" __global__ void __launch_bounds__(32)
bulk(const u8* from, int chunk, int slots, int chunks, u32* sums, u64* cycles) {
    extern __shared__ __align__(128) u8 memory[];
    __shared__ __align__(8) u64 barriers[MOST_SLOTS];
    const u8* slice = from + static_cast<size_t>(blockIdx.x) * chunk * chunks;
    const u32 to = shared_address(memory), full = shared_address(barriers);
    const u64 policy = cache_policy(true);
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < slots; slot++) barrier_init(full + 8 * slot, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        const u64 start = now();
        for (int slot = 0; slot < slots; slot++) {
            barrier_expect(full + 8 * slot, chunk);
            bulk_copy(to + slot * chunk, slice + static_cast<size_t>(slot) * chunk, chunk, full + 8 * slot, policy);
        }
        int slot = 0, parity = 0;
#pragma unroll 1
        for (int next = slots; next < chunks + slots; next++) {
            barrier_wait(full + 8 * slot, parity);
            if (next < chunks) {
                barrier_expect(full + 8 * slot, chunk);
                bulk_copy(to + slot * chunk, slice + static_cast<size_t>(next) * chunk, chunk, full + 8 * slot, policy);
            }
            if (++slot == slots) slot = 0, parity ^= 1;
        }
        cycles[blockIdx.x] = now() - start;
    }
    __syncwarp();
    u32 sum = 0;
    for (int i = threadIdx.x; i < slots * chunk / 4; i += 32) sum += reinterpret_cast<const u32*>(memory)[i];
    sums[blockIdx.x * 32 + threadIdx.x] = sum;
}
