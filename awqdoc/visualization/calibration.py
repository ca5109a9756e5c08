"""How much calibration text, and of which kind: KL divergence to FP16 by windows, domain and method."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from awqdoc.recordings import Recording
from awqdoc.visualization.accuracy import METHODS
from awqdoc.visualization.paired import paired_difference
from awqdoc.visualization.style import colour, describe, legend, new_figure, styled
from awqdoc.visualization.tables import Table

Row = dict[str, Any]
# Dashes and filling of each kind of calibration text, from the nearest to the farthest.
_LINES: dict[str, tuple[str, Any]] = {"matched": ("-", "full"), "mismatched": ("--", "none"), "random": (":", "top")}
_CALIBRATED = ("gptq", "awq")


def kind(domain: str, text: str) -> str:
    """Say how calibration text of a domain stands to the text that the result is judged on."""
    return domain if domain == "random" else "matched" if domain == text else "mismatched"


def calibrated(recording: Recording, method: str, domain: str, text: str) -> list[Row]:
    """Return the rows of one method calibrated on one domain and judged on one text, by number of windows."""
    wanted = {"model": recording.parameters["model"][0], "method": method, "domain": domain, "text": text}
    rows = [row for row in recording.rows if all(row[key] == value for key, value in wanted.items())]
    return sorted(rows, key=lambda row: int(row["windows"]))


def rounded_row(recording: Recording, text: str) -> Row:
    """Return the row of plain rounding judged on one text; it is the same in every cell, since it is not calibrated."""
    axes = recording.parameters
    return calibrated(recording, "rtn", axes["domain"][0], text)[0]


@styled
def plot_calibration(recording: Recording, text: str) -> Figure:
    """Draw the KL divergence to FP16 on one text over the windows of calibration text, by method and domain."""
    figure, axes = new_figure(f"INT3 after calibration, judged on {text}", height=4.2)
    parts = []
    for method in _CALIBRATED:
        name, hue, marker = METHODS[method]
        for domain in sorted(recording.parameters["domain"], key=lambda domain: list(_LINES).index(kind(domain, text))):
            rows = calibrated(recording, method, domain, text)
            x, y, errors = ([row[key] for row in rows] for key in ("windows", "kl", "kl_error"))
            beside = [
                count * 1.08 ** (list(_LINES).index(kind(domain, text)) - 1) for count in x
            ]  # else markers coincide
            what = "random tokens" if domain == "random" else domain
            dashes, fill = _LINES[kind(domain, text)]
            axes.plot(
                beside, y, dashes, marker=marker, fillstyle=fill, markersize=6, color=colour(hue),
                label=f"{name}, on {what}",
            )  # fmt: skip
            axes.errorbar(beside, y, yerr=errors, fmt="none", color=colour(hue), elinewidth=1.2)
            told = ", ".join(f"{kl:.3f} with {windows}" for windows, kl in zip(x, y, strict=True))
            parts.append(f"{name} on {what}: {told}")
    plain = rounded_row(recording, text)
    axes.axhline(plain["kl"], color=colour("ink"), linewidth=1)
    axes.annotate(
        "rounding, no calibration", (1, plain["kl"]), (0, 3), xycoords=("axes fraction", "data"), fontsize=8,
        textcoords="offset points", ha="right",
    )  # fmt: skip
    parts.append(f"Plain rounding, without calibration: {plain['kl']:.3f}")
    windows = recording.parameters["windows"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(windows, [str(count) for count in windows])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("windows of 512 calibration tokens (log)")
    axes.set_ylabel("KL divergence to FP16, nats (log)")
    legend(axes)
    alt = f"KL divergence to FP16 on {text} by windows of calibration text. {'. '.join(parts)}."
    return describe(figure, alt, recording)


def calibration_table(recording: Recording) -> Table:
    """Tabulate the KL divergence by how the calibration text stands to the text judged on, with standard errors."""
    kinds = list(_LINES)
    rows = []
    for text in ("code", "docs"):
        plain = rounded_row(recording, text)
        rows.append([text, METHODS["rtn"][0], "", f"{plain['kl']:.4f} ± {plain['kl_error']:.4f}", "", ""])
        for method in _CALIBRATED:
            for windows in sorted(recording.parameters["windows"]):
                cells = dict.fromkeys(kinds, "")
                for domain in recording.parameters["domain"]:
                    for row in calibrated(recording, method, domain, text):
                        if row["windows"] == windows:
                            cells[kind(domain, text)] = f"{row['kl']:.4f} ± {row['kl_error']:.4f}"
                rows.append([text, METHODS[method][0], windows, *cells.values()])
    return Table(["judged on", "method", "windows", *kinds], rows, recording, title="KL divergence to FP16 in nats")


def verdict(recording: Recording, text: str, domain: str, windows: int) -> tuple[str, float, float]:
    """Say which method ends nearer to FP16 with the same calibration text, and by how much the two differ.

    Returns
    -------
    tuple
        ``"awq"`` or ``"gptq"`` if the difference is more than twice its error, else ``"neither"``; GPTQ's KL divergence
        less AWQ's, and the error of that, both as `paired_difference` has them.
    """
    gptq, awq = (
        next(row for row in calibrated(recording, method, domain, text) if row["windows"] == windows)
        for method in _CALIBRATED
    )
    gap, error = paired_difference(gptq, awq)
    return ("gptq" if gap < -2 * error else "awq" if gap > 2 * error else "neither"), gap, error


def verdict_table(recording: Recording) -> Table:
    """Tabulate for every calibration text which of AWQ and GPTQ ends nearer to FP16."""
    rows = []
    for text in ("code", "docs"):
        for domain in recording.parameters["domain"]:
            for windows in sorted(recording.parameters["windows"]):
                better, gap, error = verdict(recording, text, domain, windows)
                name = METHODS[better][0] if better in METHODS else better
                rows.append([text, domain, windows, f"{gap:+.3f} ± {error:.3f}", name])
    columns = ["judged on", "calibrated on", "windows", "GPTQ's KL - AWQ's", "better"]
    return Table(columns, rows, recording, title="GPTQ against AWQ")
