"""The records that stages exchange and a run folder keeps: frozen pydantic models, saved as JSON."""

from .base import Finding, Part, Record, Scalar, Severity, Wanted
from .cost import CostEstimate, MachineOption, Range, TimeEstimate
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
from .memory import MemoryEstimate, Phase, Remedy
from .model import FusedShape, LinearShape, ModelFacts, ModelKind, ParameterParts
from .plan import Choice, Hardware, Plan, Split
from .preparation import Cluster, DatasetFile, Preparation, PreparationSettings, PreparationStep
from .quality import Quality
from .receipt import Receipt
from .run import LOCKED, RUN_LOCK, Event, FirstSteps, RunRecord

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
    "CostEstimate",
    "Cutting",
    "DataReport",
    "DatasetFile",
    "EvalReport",
    "Event",
    "Finding",
    "FirstSteps",
    "FusedShape",
    "Hardware",
    "Histogram",
    "Interval",
    "LabelAudit",
    "Layout",
    "LayoutShare",
    "Lengths",
    "LinearShape",
    "LossOn",
    "MachineOption",
    "Manifest",
    "MemoryEstimate",
    "ModelFacts",
    "ModelKind",
    "Packing",
    "PairAudit",
    "ParameterParts",
    "Part",
    "Phase",
    "Plan",
    "Preparation",
    "PreparationSettings",
    "PreparationStep",
    "PreviewRow",
    "Quality",
    "Range",
    "Receipt",
    "Record",
    "Remedy",
    "RunRecord",
    "Scalar",
    "Severity",
    "SourceFile",
    "Span",
    "Split",
    "TimeEstimate",
    "TokenLengths",
    "TrainedLayout",
    "Verdict",
    "Wanted",
]
