"""Prompts of text for servers that take no token ids: common words, about one token each."""

from __future__ import annotations

from collections.abc import Sequence

_TEXT = (
    "time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work "
    "government number night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name president team minute idea "
    "kid body information back parent face others level office door health person art war "
    "history party result change morning reason research girl guy moment air teacher force "
    "education foot boy age policy music process market sense nation plan college interest "
    "death experience effect use class control care field development role effort rate heart "
    "drug show leader light voice wife police mind price report decision son view "
    "relationship town road arm difference value building action model season society tax "
    "director position player record paper space ground form event official matter center "
    "couple site project activity star table need court oil situation cost industry figure "
    "street image phone data picture practice piece land product doctor wall patient worker "
    "news test movie north love step baby computer type attention film tree source "
)
_WORDS = _TEXT.split()
_SPREAD = 2654435761  # Knuth's multiplier: neighbouring ids, and ids moved by a salt, differ


def text_of(token_ids: Sequence[int]) -> str:
    """Return a text that stands for these ids: the same for the same, of about as many tokens."""
    words = (_WORDS[(int(token) * _SPREAD % 2**32 >> 12) % len(_WORDS)] for token in token_ids)
    return " ".join(words)
