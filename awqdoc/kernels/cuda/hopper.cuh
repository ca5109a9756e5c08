// What Hopper adds: barriers in shared memory that count bytes, and copies that one thread starts.
#pragma once
#include "fragments.cuh"

// A 128-byte descriptor of a matrix for tensor copies (CUtensorMap), passed by value.
struct alignas(64) TensorMap {
    u8 bytes[128];
};

DEVICE void barrier_init(u32 barrier, int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

DEVICE void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void barrier_expect(u32 barrier, int bytes) {  // arrive, and announce bytes that will come
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

DEVICE void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// What to do with lines in the L2 cache: `once`: they will not be wanted again.
DEVICE u64 cache_policy(bool once) {
    u64 policy;
    if (once) asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    else asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// Contiguous bytes to shared memory.
DEVICE void bulk_copy(u32 to, const void* from, int bytes, u32 barrier, u64 policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// A panel of X: 64 k for TOKENS tokens, zeros beyond M, in the order of `x_place`.
DEVICE void copy_panel(u32 to, const TensorMap& x, int first_k, int first_token, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&x), "r"(first_k), "r"(first_token), "r"(barrier)
                 : "memory");
}

// Dynamic shared memory from an address on that the swizzle of tensor copies asks for: 1024 bytes are lost at most.
DEVICE u8* aligned(u8* memory) { return memory + (-shared_address(memory) & 1023); }
