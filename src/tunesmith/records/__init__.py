"""The records that stages exchange and a run folder keeps: frozen pydantic models, saved as JSON."""

from .base import Finding, Part, Record, Severity
from .data import (
    Column,
    Cutting,
    DataReport,
    Histogram,
    LabelAudit,
    Layout,
    LayoutShare,
    Lengths,
    LossOn,
    Packing,
    PairAudit,
    PreviewRow,
    SourceFile,
    Span,
    TokenLengths,
    TrainedLayout,
    Verdict,
)
from .evaluation import ChangedRow, Comparison, EvalReport, Interval
from .export import Artifact, Check, Manifest
from .plan import Choice, Hardware, LinearShape, MemoryEstimate, ModelFacts, Plan, Split
from .preparation import Cluster, DatasetFile, Preparation, PreparationSettings, PreparationStep
from .quality import Quality
from .receipt import Receipt
from .run import LOCKED, RUN_LOCK, Event, RunRecord

__all__ = [
    "LOCKED",
    "RUN_LOCK",
    "Artifact",
    "ChangedRow",
    "Check",
    "Choice",
    "Cluster",
    "Column",
    "Comparison",
    "Cutting",
    "DataReport",
    "DatasetFile",
    "EvalReport",
    "Event",
    "Finding",
    "Hardware",
    "Histogram",
    "Interval",
    "LabelAudit",
    "Layout",
    "LayoutShare",
    "Lengths",
    "LinearShape",
    "LossOn",
    "Manifest",
    "MemoryEstimate",
    "ModelFacts",
    "Packing",
    "PairAudit",
    "Part",
    "Plan",
    "Preparation",
    "PreparationSettings",
    "PreparationStep",
    "PreviewRow",
    "Quality",
    "Receipt",
    "Record",
    "RunRecord",
    "Severity",
    "SourceFile",
    "Span",
    "Split",
    "TokenLengths",
    "TrainedLayout",
    "Verdict",
]
