"""Name matching: find studies by a model's or a study's name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuner.errors import UsageError, unknown_name
from tuner.store.rows import StudyIdentity


def match_model(name: str, models: Iterable[str]) -> str:
    """Return the one model that matches `name`: exactly, by a path's last parts, or by a part.

    Raises `UsageError` if none or several are meant.
    """
    known = sorted(set(models))
    wanted = name.rstrip("/")
    for means in (_is_same, _is_suffix, _is_part):
        found = [model for model in known if means(wanted, model.rstrip("/"))]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"'{name}' may be any of: {', '.join(found)}; write more of it")
    raise UsageError(f"no study of model '{name}' in the store; it holds: {', '.join(known)}")


def candidates(
    studies: Sequence[StudyIdentity], model: str | None, study: str | None
) -> list[StudyIdentity]:
    """Return the matching studies: finished ones first, the newest first within each group.

    Raises `UsageError` if none matches, or if no name is given and there are several models.
    """
    if not studies:
        raise UsageError("the store holds no study yet; start one with `tuner run`")
    chosen = list(studies)
    if study is not None:
        chosen = [s for s in studies if s.name == study]
        if not chosen:
            raise UsageError(unknown_name("study", study, (s.name for s in studies)))
    models = {s.model for s in chosen}
    if model is not None:
        wanted = match_model(model, models)
        chosen = [s for s in chosen if s.model == wanted]
    elif len(models) > 1:
        raise UsageError(
            f"the store holds several models; name one of: {', '.join(sorted(models))}"
        )
    chosen.sort(key=lambda s: s.created_at, reverse=True)
    return sorted(chosen, key=lambda s: not s.is_finished)


def _is_same(wanted: str, model: str) -> bool:
    return wanted == model


def _is_suffix(wanted: str, model: str) -> bool:
    return model.lower().endswith("/" + wanted.lower())


def _is_part(wanted: str, model: str) -> bool:
    return bool(wanted) and wanted.lower() in model.lower()
