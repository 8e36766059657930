"""Writes the sample marketplace: `python -m model.sample.generate [--out DIR]`.

The same seed and the same files give the same bytes. Each skill, text and row draws from a generator named
after itself, so that a change to one family leaves the rest as it is.
"""

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import click
import orjson

from model.sample import SAMPLE_DIR
from model.sample.family import Common, Family, IntentPlan, SkillPlan, SlotKind, read_common, read_families
from model.sample.links import Market, draw_links, family_of
from model.sample.phrases import draw_phrases, evenly
from model.sample.template import choose_words, fill_slots

SEED = "namefree sample 1"
DEV_SHARE = 0.15
NOBODY_SHARE = 0.015  # of all rows
MAX_CARD_PHRASES = 5
TAIL_PHRASES = 3  # skills with at most so many are the tail; their cards show one phrase at most

Json = dict[str, Any]


class Row(NamedTuple):
    """A request and the skill that it was meant for; None: nobody should answer."""

    text: str
    skill_id: str | None


def generate() -> dict[str, list[Json]]:
    """File name → rows. Raises `BadData` where a family's file is wrong or has too few templates."""
    common = read_common()
    families = read_families(common)
    rows = [row for family in families for row in _family_rows(family)]
    rows += _nobody_rows(common, count=round(len(rows) * NOBODY_SHARE / (1 - NOBODY_SHARE)))
    rows.sort(key=lambda row: _rng("order", row).random())
    train = [row for row in rows if not _is_dev(row.text)]
    dev = [row for row in rows if _is_dev(row.text)]
    market = _market(families)
    return {
        "skills.jsonl": [_card(family, skill, train) for family in families for skill in family.skills],
        "utterances.train.jsonl": [_utterance(row, market) for row in train],
        "utterances.dev.jsonl": [_utterance(row, market) for row in dev],
    }


def _rng(purpose: str, thing: object) -> Random:
    return Random(f"{SEED}:{purpose}:{thing}")


def _is_dev(text: str) -> bool:
    """By the text alone, so that a text stands in one split only, whoever its skills are."""
    return _rng("split", text).random() < DEV_SHARE


def _family_rows(family: Family) -> list[Row]:
    ids = [(family.skill_id(skill), skill) for skill in family.skills]
    return [Row(text, name) for name, skill in ids for text in draw_phrases(family, skill, _rng("phrases", name))]


def _nobody_rows(common: Common, count: int) -> list[Row]:
    """At most one row a template, in an order of their own."""
    choose = evenly(_rng("phrases", "nobody"))
    texts = {fill_slots(choose_words(ask, choose), common.values, choose): None for ask in common.nobody}
    ordered = sorted(texts, key=lambda text: _rng("nobody", text).random())
    return [Row(text, None) for text in ordered[:count]]


def _market(families: list[Family]) -> Market:
    pairs = [(family.skill_id(skill), skill.phrases + 1.0) for family in families for skill in family.skills]
    return Market(dict(pairs), {family.family: family.link_share for family in families})


def _utterance(row: Row, market: Market) -> Json:
    source = f"sample:{family_of(row.skill_id)}" if row.skill_id else "sample"
    linked = draw_links(market, row.skill_id, _rng("links", row))
    return {"text": row.text, "skill_id": row.skill_id, "source": source, "linked": linked}


def _card(family: Family, skill: SkillPlan, train: list[Row]) -> Json:
    declared = [intent for intent in family.intents if skill.declares(intent.name)]
    skill_id = family.skill_id(skill)
    return {
        "skill_id": skill_id,
        "name": skill.name,
        "description": skill.description,
        "category": family.category,
        "source": "sample",
        "reviews": skill.reviews,
        "invocation": skill.name.lower(),
        "phrases": _card_phrases(skill, [row.text for row in train if row.skill_id == skill_id]),
        "intents": [_intent(family, skill, intent) for intent in declared],
        "can_fulfill": {intent.name: _ability(family, skill, intent) for intent in declared},
    }


def _card_phrases(skill: SkillPlan, texts: list[str]) -> list[str]:
    """The first train texts in the random order of the rows."""
    return texts[: 1 if skill.phrases <= TAIL_PHRASES else MAX_CARD_PHRASES]


def _slots(family: Family, intent: IntentPlan) -> list[tuple[str, bool, SlotKind]]:
    """Name, required, kind."""
    bare = [(slot.removesuffix("!"), slot.endswith("!")) for slot in intent.slots]
    return [(name, required, family.slots[name]) for name, required in bare]


def _intent(family: Family, skill: SkillPlan, intent: IntentPlan) -> Json:
    values = {**family.values, **skill.values}
    slots = [
        {
            "name": name,
            "type": kind.type,
            "required": required,
            "description": kind.description,
            "values": [] if kind.is_open else values[name],
        }
        for name, required, kind in _slots(family, intent)
    ]
    return {"name": intent.name, "description": intent.description, "slots": slots}


def _ability(family: Family, skill: SkillPlan, intent: IntentPlan) -> Json:
    """A skill hears what it cannot do; of an open slot it can only hope to understand the words."""
    slots = {
        name: {
            "can_understand": "MAYBE" if kind.is_open else "YES",
            "can_fulfill": skill.answer(f"{intent.name}.{name}"),
        }
        for name, _, kind in _slots(family, intent)
    }
    return {"answer": skill.answer(intent.name), "slots": slots}


def encode(rows: list[Json]) -> bytes:
    """One JSON object a line."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=SAMPLE_DIR, help="Folder to write to.")
def main(out: Path) -> None:
    """Write the sample marketplace's three files."""
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in generate().items():
        (out / name).write_bytes(encode(rows))
        click.echo(f"{out / name}: {len(rows)} rows", err=True)


if __name__ == "__main__":
    main()
