"""Recordings as figures and tables, in one style."""

from awqdoc.visualization.accuracy import (
    accuracy_table,
    memory_table,
    order_table,
    plot_kl_by_bits,
    plot_windows,
)
from awqdoc.visualization.alpha import (
    mean_losses,
    near_ties,
    plot_duo_scaling,
    plot_scale_search,
    relative_losses,
    scale_table,
)
from awqdoc.visualization.bitfield import Bits, plot_bits
from awqdoc.visualization.calibration import (
    calibration_table,
    plot_calibration,
    rounded_row,
    verdict,
    verdict_table,
)
from awqdoc.visualization.clipping import (
    clipped_group,
    clipping_gains,
    clipping_table,
    mean_threshold,
    plot_clipped_group,
    plot_thresholds,
    threshold_shares,
)
from awqdoc.visualization.conversion import moves, plot_moves
from awqdoc.visualization.dequantization import forms_table, plot_forms
from awqdoc.visualization.fragments import lane_elements, plot_fragments
from awqdoc.visualization.helper import VisualizationHelper, plot_weight_distribution
from awqdoc.visualization.hierarchy import device_table, plot_hierarchy
from awqdoc.visualization.layouts import plot_tile, plot_wires, plot_words, wires
from awqdoc.visualization.measuring import (
    WAYS,
    agreement_doubts,
    agreement_ratios,
    agreement_rows,
    agreement_table,
    mistake_factors,
    mistakes_table,
    plot_agreement,
    plot_drift,
    plot_mistakes,
    samples_of,
    sustained,
    work_title,
)
from awqdoc.visualization.packing_speed import packing_table, packing_times, plot_packing
from awqdoc.visualization.paired import paired_difference, paired_ratio
from awqdoc.visualization.prediction import plot_prediction, predicted_seconds
from awqdoc.visualization.registers import plot_registers, register_pairs
from awqdoc.visualization.rounding import bit_ratios, plot_group, plot_rounding, rounding_rows, rounding_table
from awqdoc.visualization.salient import (
    kl_removed,
    plot_salient,
    plot_scaling,
    salient_table,
    scaled_kl,
    scaling_table,
)
from awqdoc.visualization.side_by_side import (
    block_ratios,
    block_seconds,
    blocks_timed,
    compared,
    phases_table,
    plot_block_seconds,
    plot_tools,
    speed_table,
    tools_table,
)
from awqdoc.visualization.style import PALETTE, Display, Here, describe, new_figure, to_svg
from awqdoc.visualization.sweep import layers_table, plot_latency, plot_speedup, speedups, summary
from awqdoc.visualization.tables import Table
from awqdoc.visualization.training import plot_training, training_result, training_table
from awqdoc.visualization.whole_model import parts_table, plot_block_errors, text_columns
from awqdoc.visualization.word_shapes import plot_word_shapes, words_held

__all__ = [
    "PALETTE",
    "WAYS",
    "Bits",
    "Display",
    "Here",
    "Table",
    "VisualizationHelper",
    "accuracy_table",
    "agreement_doubts",
    "agreement_ratios",
    "agreement_rows",
    "agreement_table",
    "bit_ratios",
    "block_ratios",
    "block_seconds",
    "blocks_timed",
    "calibration_table",
    "clipped_group",
    "clipping_gains",
    "clipping_table",
    "compared",
    "describe",
    "device_table",
    "forms_table",
    "kl_removed",
    "lane_elements",
    "layers_table",
    "mean_losses",
    "mean_threshold",
    "memory_table",
    "mistake_factors",
    "mistakes_table",
    "moves",
    "near_ties",
    "new_figure",
    "order_table",
    "packing_table",
    "packing_times",
    "paired_difference",
    "paired_ratio",
    "parts_table",
    "phases_table",
    "plot_agreement",
    "plot_bits",
    "plot_block_errors",
    "plot_block_seconds",
    "plot_calibration",
    "plot_clipped_group",
    "plot_drift",
    "plot_duo_scaling",
    "plot_forms",
    "plot_fragments",
    "plot_group",
    "plot_hierarchy",
    "plot_kl_by_bits",
    "plot_latency",
    "plot_mistakes",
    "plot_moves",
    "plot_packing",
    "plot_prediction",
    "plot_registers",
    "plot_rounding",
    "plot_salient",
    "plot_scale_search",
    "plot_scaling",
    "plot_speedup",
    "plot_thresholds",
    "plot_tile",
    "plot_tools",
    "plot_training",
    "plot_weight_distribution",
    "plot_windows",
    "plot_wires",
    "plot_word_shapes",
    "plot_words",
    "predicted_seconds",
    "register_pairs",
    "relative_losses",
    "rounded_row",
    "rounding_rows",
    "rounding_table",
    "salient_table",
    "samples_of",
    "scale_table",
    "scaled_kl",
    "scaling_table",
    "speed_table",
    "speedups",
    "summary",
    "sustained",
    "text_columns",
    "threshold_shares",
    "to_svg",
    "tools_table",
    "training_result",
    "training_table",
    "verdict",
    "verdict_table",
    "wires",
    "words_held",
    "work_title",
]
