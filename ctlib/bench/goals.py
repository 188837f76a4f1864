"""What the ops set out to reach, and whether a table of measurements reaches it."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Goal:
    """One figure to reach: `measure` of the contender whose name starts with `contender`."""

    op: str
    size: str
    contender: str
    measure: str  # column of the table: "ratio" (its time over ours), "max_error", "peak_mb", "median_ms", "copy_share"
    at_least: float | None = None
    at_most: float | None = None


GOALS = {
    "cpu": [
        *(Goal("rgb_to_lab", size, "OpenCV", "ratio", at_least=2) for size in ("512²", "16 × 256²")),
        *(Goal("lab_to_rgb", size, "OpenCV", "ratio", at_least=1.1) for size in ("512²", "16 × 256²")),
        *(Goal(op, "12 MP", "OpenCV", "ratio", at_least=1) for op in ("rgb_to_lab", "lab_to_rgb")),
        *(Goal(op, "512²", "kornia, eager", "ratio", at_least=6) for op in ("rgb_to_lab", "lab_to_rgb")),
        *(Goal(op, "512²", "scikit-image", "ratio", at_least=8) for op in ("rgb_to_lab", "lab_to_rgb")),
        Goal("rgb_to_lab", "12 MP", "ctlib out=, compiled", "max_error", at_most=3e-4),
        Goal("soft_histogram, gradient", "256²", "kornia, eager", "ratio", at_least=30),
        Goal("soft_histogram, gradient", "12 MP", "ctlib", "peak_mb", at_most=200),
        Goal("palette of 5", "12 MP", "ctlib", "median_ms", at_most=100),
        Goal("palette of 5", "512²", "scikit-learn KMeans", "ratio", at_least=5),
        Goal("Reinhard, 8 bits", "12 MP", "color-matcher mkl", "ratio", at_least=6),
    ],
    "cuda": [
        Goal("rgb_to_lab", "12 MP", "ctlib", "copy_share", at_least=0.8),
        Goal("rgb_to_lab", "12 MP", "kornia, eager", "ratio", at_least=12),
        Goal("rgb_to_lab, gradient", "12 MP", "ctlib", "copy_share", at_least=0.75),
        Goal("shift_hue", "12 MP", "ctlib", "copy_share", at_least=0.75),
        Goal("shift_hue", "12 MP", "kornia chain, eager", "ratio", at_least=40),
        Goal("soft_histogram, gradient", "64 × 256²", "kornia, eager", "ratio", at_least=100),
        Goal("adain, 4 labels", "16 × 256 × 64²", "masks", "ratio", at_least=20),
        Goal("annealed_mean", "16 × 313 × 64²", "softmax, einsum, eager", "ratio", at_least=5),
    ],
}


def verdicts(measured: pd.DataFrame, device: str) -> pd.DataFrame:
    """The goals of a device beside what was measured."""
    rows = []
    for goal in GOALS[device]:
        match = measured[(measured.op == goal.op) & (measured["size"] == goal.size)]
        match = match[match.contender.str.startswith(goal.contender)]
        value = float("nan") if match.empty else float(match.iloc[0][goal.measure])
        reached = value >= goal.at_least if goal.at_least is not None else value <= goal.at_most
        bound = f">= {goal.at_least:g}" if goal.at_least is not None else f"<= {goal.at_most:g}"
        rows.append({
            "task": f"{goal.op}, {goal.size}", "contender": goal.contender, "measure": goal.measure, "goal": bound,
            "measured": value, "reached": "not measured" if pd.isna(value) else "yes" if reached else "MISSED",
        })  # fmt: skip
    return pd.DataFrame(rows)
