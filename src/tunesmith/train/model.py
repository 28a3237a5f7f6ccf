"""The model that is trained, and the adapter that is put on it."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import UsageError
from ..models.load import load_under, put_on
from ..records import Plan

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


_START: Final = "start"  # PEFT takes the folder's name for the adapter's


class Trainable(NamedTuple):
    """A loaded model, and what PEFT is to put on it (None: all weights are trained, or the adapter is on it)."""

    model: PreTrainedModel
    peft_config: PeftConfig | None


def load_trainable(plan: Plan) -> Trainable:
    """The plan's base, in its dtype or in 4 bits, with its attention, and the plan's adapter, new or an earlier run's.

    Raises:
        UsageError: the model can't be loaded, or the adapter would train nothing of it.
        FindingsError: P064, an earlier adapter isn't what was planned; P079, the planned attention lacks its dropout.
    """
    from transformers import set_seed

    from .speed import set_up

    set_seed(plan.training["seed"])  # the trainer does so too late for an adapter, and for a score's head
    model = load_under(plan.model, head=plan.head, **plan.model_kwargs, **_quantization(plan))
    set_up(model, plan)
    if plan.peft is None:
        return Trainable(model, None)
    if plan.peft.start:
        return Trainable(_ready(put_on(model, Path(plan.peft.start), trains=True)), None)
    config = _peft_config(plan, model)
    if not _builds_here(plan):
        return Trainable(model, config)
    return Trainable(_ready(_built(model, config)), None)


def _quantization(plan: Plan) -> dict[str, Any]:
    if plan.quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(**plan.quantization)}


def _peft_config(plan: Plan, model: PreTrainedModel) -> PeftConfig:
    import peft

    assert plan.peft is not None
    arguments = copy.deepcopy(plan.peft.arguments)  # PEFT adds to the lists that it is given
    if tokens := arguments.get("trainable_token_indices"):
        arguments["trainable_token_indices"] = dict.fromkeys(_tables(model), tokens)
    config: PeftConfig = getattr(peft, plan.peft.config)(**arguments)
    return config


def _tables(model: PreTrainedModel) -> list[str]:
    """Names of a model's embedding and, unless it is the same weight, its output head."""
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = {id(module): name for name, module in model.named_modules()}
    distinct = {id(table.weight): table for table in reversed(tables) if table is not None}
    return [names[id(table)] for table in reversed(distinct.values())]


def _builds_here(plan: Plan) -> bool:
    """Whether the adapter is put on here rather than by the trainer.

    The trainers take a model with its adapter switched off for their reference, which isn't the base where the adapter
    began by changing it; of a model that has its adapter already they keep a copy of its start.
    """
    assert plan.peft is not None
    arguments = plan.peft.arguments
    altered = _mutates(arguments.get("init_lora_weights")) or "trainable_token_indices" in arguments
    return altered or plan.quantization is not None


def _mutates(init: Any) -> bool:
    """Whether an initialisation of LoRA takes its start out of the base's weights."""
    return str(init).startswith(("pissa", "olora"))


def _built(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    """A model with a new adapter on it."""
    from peft import get_peft_model

    made: PeftModel = get_peft_model(model, config)
    if _mutates(getattr(config, "init_lora_weights", None)):
        # Its start is kept for save_trained. By its config every copy of the adapter would change the base once more.
        start = tempfile.TemporaryDirectory(prefix="tunesmith-")
        made.save_pretrained(str(Path(start.name) / _START))
        made.start = start
        made.peft_config["default"].init_lora_weights = True
    return made


def _ready(model: PeftModel) -> Any:
    """A model with its adapter, as TRL takes it: its fused loss asks for the head's bias, which PEFT's wrapper lacks.

    Raises:
        UsageError: the adapter trains nothing.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(
            "The adapter trains nothing.",
            why="None of its weights are on a layer of this model.",
            fix="Check `adapter: {targets: ...}`; `tunesmith plan RECIPE` names the layers that there are.",
        )
    head = model.get_output_embeddings()
    if head is not None and not hasattr(head, "bias"):
        head.bias = None
    if getattr(model, "is_loaded_in_4bit", False):
        # TRL puts such an adapter into bf16. A resume must leave it so, where PEFT would make it float32 again.
        model.load_adapter = functools.partial(model.load_adapter, autocast_adapter_dtype=False)
    return model


def save_trained(model: Any, folder: Path, state: dict[str, Any] | None = None) -> None:
    """Write a model or its adapter as Transformers and PEFT do, ready to be loaded on the base that was planned.

    An adapter that began by changing its base (PiSSA, OLoRA) is written as the LoRA that makes the same of the base as
    it was, of twice the rank: B A - B0 A0 (Meng et al. 2024). A copy that a trainer keeps as its reference is left out.
    `state` holds the weights where the model has only a share of them.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        model.save_pretrained(str(folder), state_dict=state)
        return
    start = getattr(model, "start", None)
    converts = {"path_initial_model_for_weight_conversion": str(Path(start.name) / _START)} if start else {}
    # Rows that were added to an embedding are all trained, and saved as such: the whole table isn't needed.
    model.save_pretrained(
        str(folder), selected_adapters=["default"], save_embedding_layers=False, state_dict=state, **converts
    )
