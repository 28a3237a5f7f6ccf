"""A TrainerCallback of the user's own, FILE.py:NAME. Its file is run: call this only for one that a recipe names."""

from __future__ import annotations

from transformers import TrainerCallback

from ...errors import UsageError
from ...rewards.called import RewardError
from ...rewards.own import load_own


def own_callback(reference: str) -> TrainerCallback:
    """The callback that `reference` names: an instance of the class, or what the function gives.

    Raises:
        UsageError: the file can't be run, has no such name, or it makes no TrainerCallback.
    """
    try:
        made = load_own(reference)()
    except RewardError as error:
        raise _unusable(reference, str(error)) from error
    except Exception as error:  # whatever the user's code raises
        raise _unusable(reference, f"Making it raised {type(error).__name__}: {error}".splitlines()[0]) from error
    if not isinstance(made, TrainerCallback):
        raise _unusable(reference, f"It makes a {type(made).__name__}, no transformers.TrainerCallback.")
    return made


def _unusable(reference: str, why: str) -> UsageError:
    return UsageError(
        f"The callback {reference} can't be used.",
        why=why,
        fix="Name a class that derives from transformers.TrainerCallback and takes no arguments, as FILE.py:NAME.",
    )
