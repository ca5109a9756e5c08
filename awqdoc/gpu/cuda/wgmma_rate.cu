// Rate of wgmma m64nNk16 (N is COLUMNS): one or two warpgroups multiply A (64 rows of 64 k) by B^T (N rows of 64 k, in
// shared memory) again and again. A group of TOGETHER wgmmas, which add to ADDERS sums in turn, is committed at once,
// and PENDING groups are under way before the oldest is waited for. Where A comes from:
//   LEFT 0: shared memory.
//   LEFT 1: registers, always the same.
//   LEFT 2: registers that are written anew for each wgmma, as a kernel must that dequantizes its weight.
// The tensor cores, which all warpgroups of an SM share, need N / 2 cycles for each.
#include "probe.cuh"

// Lists of the sums' registers, as text and as operands.
#define L4 "%0, %1, %2, %3"
#define L8 L4 ", %4, %5, %6, %7"
#define L16 L8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define L32 L16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define L48 L32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define L64 L48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define L96 L64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define L128 L96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F8(d, i) F4(d, i), F4(d, i + 4)
#define F16(d, i) F8(d, i), F8(d, i + 8)
#define F32(d, i) F16(d, i), F16(d, i + 16)
#define F64(d, i) F32(d, i), F32(d, i + 32)

// The instruction for n columns: its n / 2 sums as a list and as operands; between them the numbers of what follows.
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 "
#if LEFT == 0
#define MULTIPLY(n, list, a0, a1, a2, a3, b, ...) \
    asm volatile(WGMMA(n) "{" list "}, %" #a0 ", %" #a1 ", 1, 1, 1, 0, 0;" : __VA_ARGS__ : "l"(a_panel), "l"(b_panel))
#else
#define MULTIPLY(n, list, a0, a1, a2, a3, b, ...) \
    asm volatile(WGMMA(n) "{" list "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b ", 1, 1, 1, 0;" \
                 : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_panel))
#endif

// sums += A B^T for 16 k. A: a fragment `a`, or a descriptor of shared memory.
DEVICE void wgmma(float (&d)[COLUMNS / 2], const u32 (&a)[4], u64 a_panel, u64 b_panel) {
#if COLUMNS == 8
    MULTIPLY(8, L4, 4, 5, 6, 7, 8, F4(d, 0));
#elif COLUMNS == 16
    MULTIPLY(16, L8, 8, 9, 10, 11, 12, F8(d, 0));
#elif COLUMNS == 32
    MULTIPLY(32, L16, 16, 17, 18, 19, 20, F16(d, 0));
#elif COLUMNS == 64
    MULTIPLY(64, L32, 32, 33, 34, 35, 36, F32(d, 0));
#elif COLUMNS == 96
    MULTIPLY(96, L48, 48, 49, 50, 51, 52, F32(d, 0), F16(d, 32));
#elif COLUMNS == 128
    MULTIPLY(128, L64, 64, 65, 66, 67, 68, F64(d, 0));
#elif COLUMNS == 192
    MULTIPLY(192, L96, 96, 97, 98, 99, 100, F64(d, 0), F32(d, 64));
#elif COLUMNS == 256
    MULTIPLY(256, L128, 128, 129, 130, 131, 132, F64(d, 0), F64(d, 64));
#else
#error COLUMNS must be 8, 16, 32, 64, 96, 128, 192 or 256
#endif
}

// Rows of 64 k in shared memory, 128-byte swizzle: address and the 1024 bytes from one 8 rows to the next, in units of
// 16 bytes. 16 k further on is 2 more.
DEVICE u64 descriptor(u32 panel) {
    return static_cast<u64>(panel >> 4 & 0x3fff) | 1ull << 16 | static_cast<u64>(1024 >> 4) << 32 | 1ull << 62;
}

// Bring rows of 64 halves to shared memory, in the order of the 128-byte swizzle.
DEVICE void bring(u8* panel, const uint4* from, int rows) {
    for (int i = threadIdx.x; i < rows * 8; i += blockDim.x)
        *reinterpret_cast<uint4*>(panel + i / 8 * 128 + ((i ^ i / 8) & 7) * 16) = from[i];
}

// a: halves [64, 64], b: halves [N, 64]. sums: float [block, warpgroup, ADDERS, 64, N]. `nothing` is 0, which the
// compiler cannot know: fragments are changed by multiples of it.
extern "C" __global__ void __launch_bounds__(256, 1)
wgmma_rate(const uint4* a, const uint4* b, int turns, u32 nothing, float* sums, u64* cycles) {
    extern __shared__ u8 memory[];
    u8 *a_rows = aligned(memory), *b_rows = a_rows + 64 * 128;
    bring(a_rows, a, 64);
    bring(b_rows, b, COLUMNS);
    const u64 a_panel = descriptor(shared_address(a_rows)), b_panel = descriptor(shared_address(b_rows));
    const int lane = threadIdx.x & 31, row = threadIdx.x / 32 % 4 * 16 + lane / 4, pair = lane % 4;
    u32 fragments[4][4], fresh[PENDING][TOGETHER][4];
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            fragments[step][i] =
                reinterpret_cast<const u32*>(a)[(row + 8 * (i % 2)) * 32 + step * 8 + pair + 4 * (i / 2)];
    float d[ADDERS][COLUMNS / 2] = {};
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    const u64 start = now();
#pragma unroll 1
    for (int turn = 0; turn < turns; turn++) {
#pragma unroll
        for (int group = 0; group < 4; group++) {
            const int slot = group % PENDING;
#pragma unroll
            for (int i = 0; i < TOGETHER * 4; i++)
                fresh[slot][i / 4][i % 4] =
                    fragments[(group * TOGETHER + i / 4) / ADDERS % 4][i % 4] ^ nothing * (turn + i / 4 % ADDERS);
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                const int step = (group * TOGETHER + i) / ADDERS % 4;
                wgmma(d[i % ADDERS], LEFT == 2 ? fresh[slot][i] : fragments[step], a_panel + 2 * step,
                      b_panel + 2 * step);
            }
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING - 1) : "memory");
        }
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    __syncthreads();
    if (threadIdx.x == 0) cycles[blockIdx.x] = now() - start;
    float* mine = sums + (blockIdx.x * (blockDim.x / 128) + threadIdx.x / 128) * ADDERS * 64 * COLUMNS;
#pragma unroll
    for (int sum = 0; sum < ADDERS; sum++)
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++)
            mine[sum * 64 * COLUMNS + (row + 8 * (i / 2 % 2)) * COLUMNS + i / 4 * 8 + 2 * pair + i % 2] = d[sum][i];
}
