r"""
How far away is the memory, and how fast are the tensor cores?
==============================================================

*"Use shared memory. Keep more loads in flight. Feed wgmma from registers."* Advice like
this is arithmetic with a few numbers: how long a load takes from each level of memory, how
many bytes a level delivers, how many products a tensor core does. Data sheets give some.
Here small kernels of our own, compiled by NVRTC, measure all of them, and show what follows
for a kernel that multiplies by INT4 weights.
"""

# %%
# Predict
# -------
# How many times longer does a load take from memory than from L1? How many bytes must each
# SM have asked for, and not yet have, to read at the memory's full rate? And does wgmma
# lose anything when its left operand, the dequantized weight, comes from registers?

from statistics import median

import awqdoc
from awqdoc import script
from awqdoc import visualization as vis
from awqdoc.gpu.report import TENSOR_FLOP_PER_CLOCK_AND_SM

options = script.parse(script.parser("Measure memory and tensor cores of this GPU."))
found = awqdoc.measure("hierarchy")
published = found.origin == "recorded"  # then the build fails if the text is wrong

# %%
# Latency
# -------
# One thread follows a chain: each load gives the address of the next, one in each 128 bytes
# of a stretch of memory, in random order, so that nothing can be fetched ahead. Stretches
# that fit into a cache have its latency. The plateaus, each within 10 %, are found by code.

staircase = vis.plot_chased(found)

# %%
# Half of L2 is near
# ------------------
# The plateau of L2 ends before half of it. Beyond, and still within L2, is another level,
# over too short a stretch for the code to call it a plateau:

nearest = dict(reversed(vis.named_plateaus(found)))
near, chip = nearest["L2 cache"], vis.probe_rows(found, "chip")[0]
l2, mib = chip["l2_bytes"], 1 << 20
print(f"L2, {l2 / mib:.0f} MiB: {near.cycles:.0f} cycles up to {near.last / mib:.0f} MiB")
beyond = []
for row in vis.probe_rows(found, "chase"):
    if 0.6 * l2 < row["footprint"] < l2:
        beyond.append(median(row["cycles"]))
        print(f"{row['footprint'] / mib:.0f} MiB: {beyond[-1]:.0f} cycles")
if published:
    assert near.last < l2 / 2 < 1.2 * near.last
    assert 1.8 * near.cycles < min(beyond) <= max(beyond) < 0.8 * nearest["memory"].cycles

# %%
# That is not yet memory, and no line was new: of stretches up to 64 MiB this SM had read
# each line once before the loads that count. NVIDIA's white paper on the A100 tells of an
# L2 in two parts, each of which caches for the SMs connected to it. If an H200's is so,
# what one SM reads is near as long as it fits into one part. That is a guess: if addresses
# were translated fast for so much memory and no more, it would look the same.
#
# Shared memory and its banks
# ---------------------------
# The 32 lanes of a warp each load a word, and the words lie a stride apart. Lanes whose
# words lie in one bank have to wait for each other.

conflicts = vis.plot_conflicts(found)
alone, queued = vis.conflict_cost(found)
print(f"each further lane on a bank: {alone:.1f} cycles alone, {queued:.1f} in a queue")
assert not published or 1.8 < queued <= alone < 2.2

# %%
# Odd strides meet no bank twice; powers of two are the worst, and the reason for swizzles.
# Two cycles for each lane, not one: a single warp gets half of the 128 bytes per cycle that
# an SM reads below. Perhaps the other half is other warps'; that is a guess.
#
# Bandwidth
# ---------
# Now all SMs read, each its own slice again and again, through L1 or past it.

bandwidth = vis.plot_read_bandwidth(found)
fits = {}  # slices that are read at the full rate
for what in ("read", "read past L1"):
    rows = vis.probe_rows(found, what)
    rates = {row["slice"]: row["bytes"] / median(row["seconds"]) for row in rows}
    fits[what] = max(at for at, rate in rates.items() if rate > 0.95 * max(rates.values()))
    together = chip["sms"] * fits[what] / mib
    print(f"{what}: full rate up to {fits[what] >> 10} KiB, {together:.0f} MiB in all")
if published:
    assert nearest["L1 cache"].last == 128 << 10 < fits["read"] == 224 << 10
    assert 1.3 * near.last < together * mib < l2  # past L1

# %%
# L2 gives its full rate over more bytes than one SM finds near. The chase left L1 after
# 128 KiB; these reads stay in it up to 224. Shared memory is cut from the same 256 KiB, and
# how much is left to L1 the driver decides unless a kernel asks. Its choice we did not see.
#
# The hierarchy
# -------------

hierarchy = vis.plot_distances(found, awqdoc.measure("device", beside=found))
script.display(vis.levels_table(found))

# %%
# Shared memory and L1 give the 128 bytes per cycle and SM of 32 banks, or nearly. Memory
# gives 1/7 of that, and takes twenty times as long to answer as L1.
#
# Bytes in flight
# ---------------
# Little's law: what is under way is rate times latency. The line is that, with the latency
# of the chase; the points are all SMs reading cold memory with so much asked for.

flight = vis.plot_in_flight(found)
needed = vis.in_flight_needed(found)
print(f"Little's law, idle: {needed / 1024:.1f} KiB on each SM")
share = {}  # of the highest rate, by bytes in flight
for what in ("loads", "bulk copies"):
    rows = vis.probe_rows(found, what)
    rates = {row["in_flight"]: row["bytes"] / median(row["seconds"]) for row in rows}
    for size in sorted(rates.keys() & {1 << 10, 32 << 10}):
        waits = size * chip["sms"] / rates[size] * 1e6 * chip["sm_clock_mhz"]
        print(f"{size >> 10:>2} KiB of {what}: {waits:.0f} cycles from asking to having")
    share[what] = {size: rate / max(rates.values()) for size, rate in rates.items()}
cycles = {level.name: level.cycles for level in vis.measured_levels(found)}
if published:  # what is said above and below
    assert 20 < cycles["memory"] / cycles["L1 cache"] < 22
    assert 2 < (32 << 10) / needed < 3
    assert share["loads"][16 << 10] < 0.9 < share["loads"][32 << 10]

# %%
# The points lie to the right of the line. The law holds, but not with the latency of an
# idle GPU: turned round, it says how long bytes were under way, and that grows with what
# is asked. **Plan with three times the bytes that the idle latency gives.** For Marlin:

ahead = 3 * 128 * 128 // 2  # three stages of 128 x 128 codes
for size, part in share["bulk copies"].items():
    if size in (8 << 10, ahead, 32 << 10, 64 << 10):
        print(f"{size >> 10:>3} KiB in bulk copies: {part:.0%} of their highest rate")
if published:
    assert share["bulk copies"][ahead] < 0.9 < 0.94 < share["bulk copies"][32 << 10]

# %%
# Marlin's ring has 24 KiB ahead. Here that would hold its copies back a little, if they do
# as bulk copies do, which was not tried. On an A100 each SM's part of the bandwidth is half
# (data sheets). :ref:`Step 7 <sphx_glr_gallery_marlin_plot_30_ladder.py>` asks for more.
#
# Tensor cores
# ------------

capability = tuple(map(int, found.provenance["compute_capability"].split(".")))
promised = TENSOR_FLOP_PER_CLOCK_AND_SM.get(capability)
wgmmas = vis.probe_rows(found, "wgmma")
if wgmmas:
    rate = max(2 * 64 * 16 * row["columns"] / median(row["cycles"]) for row in wgmmas)
    clock = vis.clock_at_work(found)
    print(f"wgmma reaches {rate / promised:.1%} of {promised} FLOP per cycle and SM")
    print(f"at {clock / 1e6:.0f} MHz; {chip['sm_clock_mhz']} MHz, says NVML afterwards")
    held = {reason for row in wgmmas for reason in row["throttle_reasons"]}
    assert not published or (abs(rate / promised - 1) < 0.01 and clock < 1.8e9 and not held)
script.display(vis.peak_table(found))

# %%
# In cycles wgmma does what the formula promises; in seconds less, since the clock was lower
# while it worked. NVML, asked when it was over, named no reason. mma.sync stays below two
# thirds of the data sheet, as Machete's authors say. Now INT4: a dequantized weight is the
# left operand, A, 64 outputs by 16 k, in shared memory or in registers. *Written anew*
# costs a few instructions each time, as dequantizing does. Two warpgroups take turns:

figures = {"latency": staircase, "bank_conflicts": conflicts, "bandwidth": bandwidth}
figures |= {"hierarchy": hierarchy, "bytes_in_flight": flight}
if wgmmas:
    figures["wgmma"] = vis.plot_wgmma(found, (1, 4, 1), warpgroups=2)
for left in vis.LEFTS if published else ():
    took = vis.wgmma_cycles(found, left, (1, 4, 1), 2)
    assert all(abs(took[n] - n / 2) < 0.1 for n in took if n >= 64)
    if left == "shared memory":
        model = {n: max(n / 2, vis.operand_cycles(n, left)) for n in took}
        assert all(abs(took[n] - model[n]) < 0.1 for n in took)
    assert all(took[n] < model[n] + 0.1 for n in took)
    assert left != "registers" or model[8] - 4 > took[8] > 0.99 * took[16] > 12

# %%
# **From 64 columns on it does not matter where A is**: all take N / 2 cycles, the tensor
# cores' own time. Below, registers are *faster*, and no slower if written anew. A from
# shared memory costs 16 + N / 4 cycles, what 128 bytes per cycle need for 64 rows of A and
# N of B. That this fits to a tenth of a cycle suggests that shared memory is the limit
# there. From registers a floor remains that neither model has: 8 columns cost what 16 do.
#
# Limits
# ------
# - One SM chased. Memory's latency includes whatever finding an address costs.
# - Rates in seconds contain the launch, some microseconds. Rates in cycles do not.
# - NVIDIA publishes no rate of Hopper's L2 to set beside ours.
# - The published latencies are an H800's, found by other probes.
# - A kernel that also multiplies has less of everything for its copies.

script.show(figures, options.output_dir)
