"""The peak of a training step as the largest of its phases."""

from __future__ import annotations

from ...records import MemoryEstimate, Phase
from .activations import Widths, block_memory, widths_of
from .block import Block, block_of, text_linears
from .generation import forward_work, generation_memory
from .head import HeadMemory, head_memory
from .state import State, base_bytes, state_of
from .step import Step

CONTEXT = 500 << 20
"""CUDA's context and libraries, bytes: some 0.5 GB on data centre GPUs. Assumed, not measured here."""
_STASHED = 5  # blocks' inputs that TRL's activation offloading keeps on the device (max_fwd_stash_size)
_IDS = 32  # token ids, labels, mask and positions of a token, bytes
_FRAGMENTED = 0.27  # of what comes and goes; the median of fms-acceleration's rows on one A100 (docs/memory.md)
# The worst row of docs/memory.md that counts as validation: held out, before what it showed was counted.
_ALLOCATED_ERROR = 0.08
# GPT-BigCode, taken for a Llama block, took 40% less (full training) to 22% more (QLoRA) than estimated (same page).
_ROUGH_ERROR = 0.5
_RESERVED_ERROR, _SHARDED_RESERVED_ERROR = 0.1, 0.3  # sharding's streams delay what the allocator can use again


def estimate(step: Step) -> MemoryEstimate:
    """Memory that a step needs on each device: its parts at the peak, and all phases with theirs.

    Images of a vision model aren't counted, only its weights.
    """
    widths, block = widths_of(step), block_of(step)
    head, state = head_memory(step, widths), state_of(step, widths)
    blocks = _Blocks(step, block, widths)
    reference = base_bytes(step, widths) if step.reference == "model" and step.trained else 0
    stable = {
        "weights": state.weights,
        "optimizer": state.optimizer,
        "reference": reference,
        "gradients": state.gradients if step.accumulate else 0,
        "buffers": state.buckets,
    }
    phases = _training(step, stable, blocks, head, state)
    if step.reference == "model":
        work = step.tokens * forward_work(block, widths)
        phases.insert(0, _phase("reference", stable, activations=work, loss=head.forward, buffers=state.gathered))
    cache, generating = generation_memory(step, widths, block)
    if generating:
        phases.append(_phase("generation", stable, activations=generating - cache, cache=cache, buffers=state.gathered))
    peak = max(phases, key=lambda phase: phase.bytes)
    rough = _ROUGH_ERROR if step.model.rough or not step.measured else 0.0
    estimated = MemoryEstimate(
        weights=state.weights,
        gradients=peak.parts["gradients"],
        optimizer=state.optimizer,
        state=state.weights + peak.parts["gradients"] + state.optimizer,
        phases=phases,
        allocated=peak.bytes,
        reserved=peak.bytes + round(_FRAGMENTED * (peak.bytes - sum(stable.values()))),
        context=CONTEXT,
        allocated_error=max(rough, _ALLOCATED_ERROR),
        reserved_error=max(rough, _RESERVED_ERROR if step.devices == 1 else _SHARDED_RESERVED_ERROR),
    )
    return estimated.model_copy(update=peak.parts)


def _phase(name: str, stable: dict[str, int], **more: int) -> Phase:
    """A phase of what is always there and what comes on top, by parts."""
    parts = stable | {part: stable.get(part, 0) + size for part, size in more.items()}
    return Phase(name=name, bytes=sum(parts.values()), parts=parts)


class _Blocks:
    """All blocks of a model in one step, in bytes.

    Attributes:
        kept: Alive between forward and backward.
        last: Of that, what is still alive when only the first block's backward remains.
        work: On top of these while one block runs backward (recomputed, when checkpointed).
        cast: Weights cast to the compute dtype in the forward pass.
        recast: Of that, alive in the backward pass.
        weights: Parameters of the blocks.
    """

    def __init__(self, step: Step, block: Block, widths: Widths) -> None:
        memory = block_memory(step, block)
        layers, stream = max(1, step.model.layers), widths.stream * step.model.hidden
        fp32_stream = widths.stream == 4
        per_token = {
            "off": memory.kept * layers + fp32_stream * stream,
            "full": stream * layers,
            "selective": (stream + memory.score) * layers,
            "offload": stream * min(layers, _STASHED),
        }[step.checkpointing]
        masks = (2 if step.model.windowed else 1) * step.length if step.padded else 0
        shared = masks + _IDS
        off = step.checkpointing == "off"
        # An fp32 block input is its first norm's kept input too: counted once.
        recomputed = 0 if off else memory.kept - fp32_stream * stream
        self.kept = step.tokens * (per_token + shared)
        self.last = step.tokens * (per_token // layers + shared)
        if _hoards(step):
            self.last = 2 * self.kept
        self.work = step.tokens * (memory.work + recomputed)
        self.weights = _block_parameters(step)
        # Autocast caches the casts of trained weights until the forward pass ends; those of frozen ones live as long as
        # the graph that needs them.
        casts = self.weights * widths.compute if widths.stored != widths.compute else 0
        # PEFT adds the adapter's product to fused experts before they are used: a second copy of them.
        merged = step.model.parts.experts * widths.compute if block.adapted_experts else 0
        self.cast = (casts if step.trained or off else casts // layers) + (merged if off else merged // layers)
        self.recast = (casts + merged) if off else (casts + merged) // layers
        self.work += merged // layers // 3  # the gradient of the output matrices, which come first


def _hoards(step: Step) -> bool:
    """Whether inputs of checkpointed blocks, and the gradients of these, live until backward ends.

    FSDP1 registers a hook on the inputs of frozen blocks that holds them
    (torch/distributed/fsdp/_runtime_utils.py, _register_post_backward_reshard_only_hook); FSDP2 does not.
    """
    frozen = not step.trained and step.checkpointing != "off"
    return frozen and step.sharding == "fsdp" and step.code != "today"


def _block_parameters(step: Step) -> int:
    parts = step.model.parts
    linear = sum(x.in_features * x.out_features * x.count for x in text_linears(step.model))
    return (linear or parts.attention + parts.mlp) + parts.experts


def _training(step: Step, stable: dict[str, int], blocks: _Blocks, head: HeadMemory, state: State) -> list[Phase]:
    """The phases of forward, backward and update.

    Activations shrink and gradients grow by the same amount with each block, so one of the two ends is the largest.
    """
    gradients = 0 if step.accumulate else state.gradients
    layers = max(1, step.model.layers)
    first = min(gradients, head.gradient)
    of_block = gradients * blocks.weights // max(1, step.model.parameters) // layers if step.trained else 0
    embedding = 0 if step.model.tied else first
    tied = first if step.model.tied else 0
    off = step.checkpointing == "off"
    kept, remaining = blocks.kept + head.kept, max(0, gradients - of_block - embedding)

    def phase(name: str, *, casts: int = 0, **more: int) -> Phase:
        return _phase(name, stable, buffers=state.gathered + casts, **more)

    return [
        phase("forward and loss", casts=blocks.cast, activations=kept, loss=head.forward),
        phase("backward of the head", casts=blocks.recast if off else 0, activations=kept, loss=head.backward),
        phase("backward, first block", casts=blocks.recast, activations=blocks.kept + blocks.work, gradients=first),
        phase(
            "backward, last block",
            casts=blocks.recast // (layers if off else 1),
            activations=blocks.last + blocks.work,
            gradients=remaining,
        ),
        phase("end of backward", gradients=gradients + tied),
        _phase("optimizer", stable, gradients=gradients, buffers=state.update),
    ]
