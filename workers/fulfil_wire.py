"""CanFulfillIntentRequest as it travels: the question and the answer as JSON, both ways.

The form is the documented one (developer.amazon.com, "Implement CanFulfillIntentRequest for Name-free
Interaction"): version, context.System and a request in one envelope; the answer under response.canFulfillIntent.
Nothing of the customer travels: a skill is asked before anybody has chosen it.
"""

import uuid
from datetime import UTC, datetime

import msgspec
import orjson

from model.fulfilment import Question
from topics.events import Ability, Answer, SlotAbility

KIND = "CanFulfillIntentRequest"
VERSION = "1.0"


class Broken(Exception):
    """What came back is no answer; `str()` says why, for the log."""


class _Slot(msgspec.Struct, rename="camel"):
    can_understand: Answer
    can_fulfill: Answer


class _CanFulfill(msgspec.Struct, rename="camel"):
    can_fulfill: Answer
    slots: dict[str, _Slot] | None = None


class _Response(msgspec.Struct, rename="camel"):
    can_fulfill_intent: _CanFulfill


class _Answer(msgspec.Struct):
    response: _Response


class _Value(msgspec.Struct):
    value: str = ""


class _Intent(msgspec.Struct):
    name: str
    slots: dict[str, _Value] | None = None


class _Request(msgspec.Struct):
    type: str
    intent: _Intent
    locale: str = "en-US"


class _Question(msgspec.Struct):
    request: _Request


_ANSWERS = msgspec.json.Decoder(_Answer)
_QUESTIONS = msgspec.json.Decoder(_Question)


def encode_question(question: Question, sent: datetime | None = None) -> bytes:
    """The request's body; `sent` is now where it is not given."""
    slots = {name: {"name": name, "value": value} for name, value in question.slots}
    system = {
        "application": {"applicationId": question.skill_id},
        "user": {},
        "device": {"supportedInterfaces": {}},
    }
    request = {
        "type": KIND,
        "requestId": f"namefree.request.{uuid.uuid4()}",
        "timestamp": (sent or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "locale": question.locale,
        "intent": {"name": question.intent, "slots": slots},
    }
    return orjson.dumps({"version": VERSION, "context": {"System": system}, "request": request})


def decode_answer(body: bytes, question: Question) -> Ability:
    """The answer in a response's body; slots that were not asked about are left out.

    Raises Broken where it is no JSON, lacks a field, or says anything but YES, MAYBE or NO.
    """
    try:
        said = _ANSWERS.decode(body).response.can_fulfill_intent
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Broken(f"no canFulfillIntent in the answer: {error}") from error
    slots = said.slots or {}
    asked = [(name, slots[name]) for name, _ in question.slots if name in slots]
    return Ability(
        said.can_fulfill,
        {name: SlotAbility(slot.can_understand, slot.can_fulfill) for name, slot in asked},
    )


def decode_question(body: bytes, skill_id: str, endpoint: str) -> Question:
    """What a skill reads of a request's body. Raises Broken where that is no CanFulfillIntentRequest."""
    try:
        request = _QUESTIONS.decode(body).request
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Broken(f"no {KIND}: {error}") from error
    if request.type != KIND:
        raise Broken(f"no {KIND} but {request.type!r}")
    slots = tuple((name, slot.value) for name, slot in sorted((request.intent.slots or {}).items()))
    return Question(skill_id, endpoint, request.intent.name, slots, request.locale)


def encode_answer(ability: Ability) -> bytes:
    """The body with which a skill answers."""
    slots = {
        name: {"canUnderstand": slot.can_understand, "canFulfill": slot.can_fulfill}
        for name, slot in ability.slots.items()
    }
    said = {"canFulfill": ability.answer, "slots": slots}
    return orjson.dumps({"version": VERSION, "response": {"canFulfillIntent": said}})
