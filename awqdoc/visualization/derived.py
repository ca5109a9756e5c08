"""What follows from the times of the sweep, row by row: as a table for readers, as CSV for programs."""

from __future__ import annotations

import csv
import io
from statistics import median
from typing import Any

from awqdoc.kernels import BACKENDS
from awqdoc.kernels.floors import FLOORS
from awqdoc.profiling import summarize
from awqdoc.recordings import Recording
from awqdoc.visualization.prediction import predicted_seconds
from awqdoc.visualization.roofline import Roofs, has_floors, measured_roofs
from awqdoc.visualization.style import si
from awqdoc.visualization.sweep import problem, speedups, timed
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
# The columns of the CSV: the same whether or not something was skipped or has no floors.
COLUMNS = (
    "shape", "group_size", "m", "backend", "samples", "median_us", "q1_us", "q3_us", "min_us", "max_us", "tokens_per_s",
    "tflops", "useful_gb_per_s", "speedup_over_fp16", "memory_saved", "share_of_roofline", "relative_error", "skipped",
    "sm_clock_mhz", "power_w", "throttle_reasons", "origin", "gpu", "date", "commit",
)  # fmt: skip


def results(recording: Recording) -> list[Row]:
    """Return a dict for each row of a sweep: what was measured and what follows.

    Times are in µs: ``median_us``, the quartiles ``q1_us`` and ``q3_us``, ``min_us``, ``max_us``. ``tokens_per_s``
    count this one product alone. ``useful_gb_per_s`` counts the fewest bytes that the product needs: the weight in the
    backend's format, X and Y, once each. ``speedup_over_fp16`` is the median of the ratios, round by round.
    ``memory_saved`` is a share of the FP16 weight. ``share_of_roofline``: the time that the roofs measured in the same
    sweep allow, over the median. ``relative_error`` (Frobenius norm) is against a float32 product of the same
    dequantized weight. Floors have the rate at which they read or compute, and none of what compares backends.
    """
    roofs = _roofs(recording)
    found = []
    for row in recording.rows:
        result: Row = {key: row.get(key) for key in ("shape", "group_size", "m", "backend")}
        found.append(result)
        if "seconds" not in row:
            result["skipped"] = row["skipped"]
            continue
        samples = summarize([1e6 * seconds for seconds in row["seconds"]])
        result |= {
            "samples": samples.count, "median_us": samples.median, "q1_us": samples.low, "q3_us": samples.high,
            "min_us": samples.least, "max_us": samples.most,
        }  # fmt: skip
        seconds = median(row["seconds"])
        if row["backend"] in FLOORS:
            rate = row.get("flops", row.get("bytes")) / seconds
            result |= {"tflops": rate / 1e12} if "flops" in row else {"useful_gb_per_s": rate / 1e9}
        else:
            size, bits = problem(row), BACKENDS[row["backend"]].bits
            ratios = speedups(recording, row["backend"], row["shape"]).get(row["m"])
            result |= {
                "tokens_per_s": row["m"] / seconds,
                "tflops": size.flops / seconds / 1e12,
                "useful_gb_per_s": size.bytes(bits) / seconds / 1e9,
                "speedup_over_fp16": median(ratios) if ratios else None,
                "memory_saved": 1 - size.weight_bytes(bits) / size.weight_bytes(16),
                "share_of_roofline": predicted_seconds(size, bits, roofs) / seconds if roofs else None,
                "relative_error": row["error"],
            }
        result |= {key: row.get(key) for key in ("sm_clock_mhz", "power_w")}
        result["throttle_reasons"] = "; ".join(row.get("throttle_reasons") or ())
    return found


def _roofs(recording: Recording) -> Roofs | None:
    """Return the roofs that were measured in a sweep, or None: on a CPU an FP16 product is emulated, and no roof."""
    on_gpu = recording.provenance.get("device") != "cpu"
    return measured_roofs(recording) if on_gpu and has_floors(recording) else None


def results_csv(recording: Recording) -> str:
    """Return `results` as CSV, each line with where it comes from: origin, gpu (or processor), date, commit."""
    source = {"origin": recording.origin, **{key: recording.provenance.get(key) for key in ("gpu", "date", "commit")}}
    rows = [{**row, **source} for row in results(recording)]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{cell:.6g}" if isinstance(cell, float) else cell for key, cell in row.items()})
    return text.getvalue()


def summary(recording: Recording, shape: str, batches: list[int] | None = None) -> Table:
    """Tabulate one shape: time, rates, speed-up over FP16, share of the roofline, memory saved; see `results`."""
    rows = []
    for row in results(recording):
        if row["shape"] != shape or row["backend"] not in BACKENDS or "skipped" in row:
            continue
        if batches is None or row["m"] in batches:
            speedup, share = row["speedup_over_fp16"], row["share_of_roofline"]
            rows.append([
                row["m"], BACKENDS[row["backend"]].title, f"{row['median_us']:.1f}", si(row["tokens_per_s"], ""),
                _digits(row["tflops"]), _digits(row["useful_gb_per_s"]), "" if speedup is None else f"{speedup:.2f}",
                "" if share is None else f"{share:.0%}", f"{row['memory_saved']:.0%}", f"{row['relative_error']:.0e}",
            ])  # fmt: skip
    columns = [
        "M", "backend", "µs", "tokens/s", "TFLOP/s", "useful GB/s", "speed-up", "of the roofline", "memory saved",
        "kernel error",
    ]  # fmt: skip
    roofs = _roofs(recording)
    measured = (
        f"; roofs {si(roofs.bandwidth, 'B/s')} ({FLOORS[roofs.floor].title}) and {si(roofs.peak, 'FLOP/s')} "
        f"({FLOORS['matmul'].title})"
        if roofs
        else ""
    )
    return Table(columns, rows, recording, title=f"{shape} (N x K), medians{measured}")


def _digits(rate: float) -> str:
    """Return three digits or more, without an exponent: on a CPU rates are thousandths of a GPU's."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def gpus_table(sweep: Recording, published: list[Recording], shape: str) -> Table:
    """Tabulate FP16 and the best INT4 backend in µs, of a sweep and beside it of each other GPU with one published."""
    holding = [sweep]
    for other in published:
        known = [one.provenance["gpu"] for one in holding]
        common = set(sweep.parameters["m"]) & {row["m"] for row in timed(other, "fp16", shape)}
        if common and other.provenance["gpu"] not in known:
            holding.append(other)
    rows = []
    for m in sweep.parameters["m"]:
        cells: list[str] = []
        for one in holding:
            times = {
                name: median(row["seconds"]) for name in BACKENDS for row in timed(one, name, shape) if row["m"] == m
            }
            fp16 = times.pop("fp16", None)
            best = min(times, key=times.__getitem__, default=None)
            cells.append("" if fp16 is None else f"{1e6 * fp16:.1f}")
            cells.append(
                "" if best is None else f"{1e6 * times[best]:.1f} ({BACKENDS[best].title.removeprefix('INT4 ')})"
            )
        rows.append([m, *cells])
    names = [one.provenance["gpu"] for one in holding]
    columns = ["M", *(f"{name}, {kind}" for name in names for kind in ("FP16, µs", "best INT4, µs"))]
    beside = "".join(f"; beside it {other.label}" for other in holding[1:])
    return Table(columns, rows, sweep, title=f"{shape} (N x K), medians{beside}")
