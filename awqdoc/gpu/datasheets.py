"""What NVIDIA's data sheets and white papers say of GPUs that readers have: inputs of models, never measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSheet:
    """One GPU.

    Attributes
    ----------
    name : str
        As readers call it.
    bandwidth : float
        Of its memory, bytes per second.
    peak : float
        Dense FP16 tensor-core rate with FP32 accumulation, FLOP per second (a multiply-add is two). Figures
        "with sparsity" are twice as high.
    reported : str
        The name that NVIDIA's driver gives this GPU, and no other variant of it.
    capability : tuple of int
        Compute capability, major and minor.
    sms : int
        Streaming multiprocessors.
    """

    name: str
    bandwidth: float
    peak: float
    reported: str
    capability: tuple[int, int]
    sms: int

    @property
    def ridge(self) -> float:
        """FLOP per byte above which the tensor cores are the bottleneck."""
        return self.peak / self.bandwidth


DATA_SHEETS = (
    DataSheet("T4", 320e9, 65e12, "Tesla T4", (7, 5), 40),
    DataSheet("A10", 600e9, 125e12, "NVIDIA A10", (8, 6), 72),
    DataSheet("L4", 300e9, 121e12, "NVIDIA L4", (8, 9), 58),
    DataSheet("RTX 4090", 1008e9, 165.2e12, "NVIDIA GeForce RTX 4090", (8, 9), 128),
    DataSheet("A100 80 GB SXM", 2039e9, 312e12, "NVIDIA A100-SXM4-80GB", (8, 0), 108),
    DataSheet("H100 SXM", 3350e9, 989.5e12, "NVIDIA H100 80GB HBM3", (9, 0), 132),
    DataSheet("H200 SXM", 4800e9, 989.5e12, "NVIDIA H200", (9, 0), 132),
    DataSheet("B200", 8000e9, 2250e12, "NVIDIA B200", (10, 0), 148),
)
