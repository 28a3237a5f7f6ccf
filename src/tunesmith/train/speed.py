"""What the plan chose for speed, done to the model and its trainer; the loss stays what it was."""

from __future__ import annotations

import copy
import importlib.util
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..records import VARLEN, Plan
from ..rules import FindingsError, finding
from .attention import packing_error, predictions, register, rounding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

_WARM: Final = 1  # steps that make kernels and the optimizer's state
_TIMED: Final = 5
_COMPILING: Final = 90.0  # seconds that a block takes at the most, once for training and once for evaluating
_SAVED: Final = 0.1  # of a step's time, at the least of what was published (15 to 44%)
_DROPOUTS: Final = ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout")  # as configs call it
_WORDS: Final = 256  # of a model that is built to try kernels on


def set_up(model: Any, plan: Plan) -> None:
    """Set a loaded model's attention and kernels, before its trainer is built.

    Raises:
        FindingsError: P079.
    """
    base = unwrapped(model)
    if plan.speed.attention:
        if plan.speed.attention == VARLEN:
            _refuse_dropout(base)
            register()
        base.set_attn_implementation(plan.speed.attention)
    if plan.speed.kernels and importlib.util.find_spec("liger_kernel") and kernels_agree(base):
        _use_kernels(base)


def _refuse_dropout(model: PreTrainedModel) -> None:
    """What the plan does by config.json, on the model itself: a plan made by a table hasn't seen that file."""
    config = model.config.get_text_config()
    dropout = next((value for name in _DROPOUTS if (value := getattr(config, name, None))), 0.0)
    if dropout:
        raise FindingsError([finding("P079", "speed.attention", dropout=dropout)])


def end_to_end(args: Any, model: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """TRL's collator that lays the rows of a batch end to end, where the arguments ask for it without packing.

    TRL makes it itself only where no row may be cut; so it is handed over, and taken out of the arguments. None where
    TRL's own choice is right.
    """
    if not args.padding_free or args.packing:
        return None
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    args.padding_free = False
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pad, base = tokenizer.pad_token_id, unwrapped(model)
    base.config.get_text_config().pad_token_id = base.generation_config.pad_token_id = pad  # as TRL does
    return DataCollatorForLanguageModeling(
        pad_token_id=pad, padding_free=True, pad_to_multiple_of=args.pad_to_multiple_of
    )


def check_apart(trainer: Trainer, plan: Plan) -> None:
    """Refuse a model whose rows see each other when they lie end to end, by trying it.

    Raises:
        FindingsError: P075.
    """
    flat = plan.training.get("packing") or plan.training.get("padding_free")
    if not flat or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # those have a share of the weights each
        return
    model, args = unwrapped(trainer.model), trainer.args
    half = args.bf16 or args.fp16
    try:
        with torch.autocast(model.device.type, torch.bfloat16 if args.bf16 else torch.float16, enabled=half):
            error = packing_error(model)
    except ValueError as refusal:
        raise _leaks(plan, str(refusal).splitlines()[0]) from refusal
    if not error <= rounding(torch.bfloat16 if half else model.dtype):
        raise _leaks(plan, f"a row's predictions change by {error:.2g} nats with the row before it")


def _leaks(plan: Plan, reason: str) -> FindingsError:
    return FindingsError([finding("P075", "training", model_type=plan.model.model_type, reason=reason)])


def unwrapped(model: Any) -> Any:
    """The model under its adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def kernels_agree(model: PreTrainedModel) -> bool:
    """Whether Liger's kernels give a model like this one the same predictions: tried on one block with random weights.

    Architectures that Liger doesn't know stay as they are, and agree.
    """
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config.get_text_config())
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, _WORDS, None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    # Their draws are no part of the run's.
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.device(model.device):
        torch.manual_seed(0)
        small = AutoModelForCausalLM.from_config(config, dtype=model.dtype).eval()
        tokens = torch.randint(_WORDS, (64,))
    before = predictions(small, tokens, {})
    _use_kernels(small)
    after = predictions(small, tokens, {})
    return bool((before.exp() * (before - after)).sum(-1).mean() <= rounding(model.dtype))


def _use_kernels(model: Any) -> None:
    from transformers.integrations.liger import apply_liger_kernel

    # The loss is TRL's fused one.
    apply_liger_kernel(model, {"fused_linear_cross_entropy": False, "cross_entropy": False})


def compile_blocks(model: Any, *, backend: str = "inductor") -> int:
    """Compile a model's blocks where they are, one kind once; returns how many there are.

    Blocks of a kind share what is compiled; lengths may change from batch to batch.
    """
    base = unwrapped(model)
    names = set(base._no_split_modules or ())
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    return len(blocks)


class CompileCallback(TrainerCallback):
    """Compiles the model's blocks: at once, or when the first steps show that the rest is long enough to pay for it."""

    def __init__(self, *, at_once: bool, backend: str = "inductor") -> None:
        self._at_once = at_once
        self._backend = backend
        self._first = 0
        self._began = 0.0
        self.compiled = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Compile at once, or remember which step ends the warm-up."""
        self._first = state.global_step + _WARM
        if self._at_once:
            self.compiled = compile_blocks(model, backend=self._backend)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Look at the clock, once."""
        if self._at_once:
            return
        if state.global_step == self._first:
            self._began = time.monotonic()
        if state.global_step == self._first + _TIMED:
            left = (time.monotonic() - self._began) / _TIMED * (state.max_steps - state.global_step)
            if left * _SAVED > _COMPILING:
                self.compiled = compile_blocks(model, backend=self._backend)


def callbacks(plan: Plan) -> list[TrainerCallback]:
    """What the trainer needs besides."""
    return [] if plan.speed.compile == "off" else [CompileCallback(at_once=plan.speed.compile == "on")]
