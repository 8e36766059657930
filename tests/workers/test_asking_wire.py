"""The question and the answer as they travel, and the signature over them."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from model.fulfilment import Question
from tests.workers.asking import YES_HOME, fresh_metrics, local, question, sandbox
from topics.errors import UsageError
from topics.events import Ability, SlotAbility
from workers.asking import SkillAsks
from workers.fulfil_wire import Broken, decode_answer, decode_question, encode_answer, encode_question
from workers.signing import Signer

CRICKETS = Question("amzn1.ask.skill.1", "https://example.com/", "PlaySound", (("Sound", "crickets"),), "en-GB")
CHAIN = "https://example.com/chain.pem"


def pem(key: object, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(65_537, 2_048)


def test_a_question_has_the_documented_fields_and_nothing_of_the_customer() -> None:
    sent = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    found = orjson.loads(encode_question(CRICKETS, sent))
    own = found["request"].pop("requestId")
    assert re.fullmatch(r"namefree\.request\.[0-9a-f]{8}-[0-9a-f-]{27}", own)
    assert found == {
        "version": "1.0",
        "context": {
            "System": {
                "application": {"applicationId": "amzn1.ask.skill.1"},
                "user": {},
                "device": {"supportedInterfaces": {}},
            }
        },
        "request": {
            "type": "CanFulfillIntentRequest",
            "timestamp": "2026-05-04T03:02:01Z",
            "locale": "en-GB",
            "intent": {"name": "PlaySound", "slots": {"Sound": {"name": "Sound", "value": "crickets"}}},
        },
    }


def test_two_questions_have_two_request_ids() -> None:
    ids = {orjson.loads(encode_question(CRICKETS))["request"]["requestId"] for _ in range(2)}
    assert len(ids) == 2


def test_the_documented_answer_is_read() -> None:
    body = b"""{"version": "1.0", "response": {"canFulfillIntent": {"canFulfill": "MAYBE", "slots": {
        "Sound": {"canUnderstand": "YES", "canFulfill": "NO"},
        "Other": {"canUnderstand": "YES", "canFulfill": "YES"}}}, "outputSpeech": null}}"""
    assert decode_answer(body, CRICKETS) == Ability("MAYBE", {"Sound": SlotAbility("YES", "NO")})


@pytest.mark.parametrize("slots", [b"", b', "slots": {}', b', "slots": null'])
def test_an_answer_may_leave_the_slots_out(slots: bytes) -> None:
    body = b'{"response": {"canFulfillIntent": {"canFulfill": "NO"%s}}}' % slots
    assert decode_answer(body, CRICKETS) == Ability("NO")


@pytest.mark.parametrize(
    "said",
    [
        b"null", b"true", b'"YES"', b"[]", b"{}", b'{"canFulfill": true}', b'{"canFulfill": "SURE"}',
        b'{"canFulfill": null}', b'{"canFulfill": "YES", "slots": []}',
        b'{"canFulfill": "YES", "slots": {"a": 1}}',
        b'{"canFulfill": "YES", "slots": {"Sound": {"canUnderstand": "YES"}}}',
        b'{"canFulfill": "YES", "slots": {"Other": {"canUnderstand": "YES", "canFulfill": "OFTEN"}}}',
    ],
)  # fmt: skip
def test_an_answer_of_any_other_kind_is_broken(said: bytes) -> None:
    with pytest.raises(Broken):
        decode_answer(b'{"response": {"canFulfillIntent": %s}}' % said, CRICKETS)


def test_both_directions_agree() -> None:
    assert decode_question(encode_question(CRICKETS), CRICKETS.skill_id, CRICKETS.endpoint) == CRICKETS
    ability = Ability("YES", {"Sound": SlotAbility("MAYBE", "NO")})
    assert decode_answer(encode_answer(ability), CRICKETS) == ability
    with pytest.raises(Broken):
        decode_question(b'{"request": {"type": "LaunchRequest", "intent": {"name": "x"}}}', "s", "e")


def test_the_signature_verifies_with_the_public_key_over_the_very_body(tmp_path: Path, key: RSAPrivateKey) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(key))
    with (
        sandbox(a="honest") as skills,
        SkillAsks(local(key=file, certificate_url=CHAIN), fresh_metrics()) as asks,
    ):
        assert asks.ask([question(skills, "a")]) == [YES_HOME]
        assert skills.last is not None
        headers, body = skills.last.headers, skills.last.body
    assert headers["SignatureCertChainUrl"] == CHAIN
    assert headers["Content-Type"].startswith("application/json")
    signature = base64.b64decode(headers["Signature-256"], validate=True)
    key.public_key().verify(signature, body, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, body + b" ", PKCS1v15(), SHA256())


def test_nothing_is_signed_without_a_key() -> None:
    with sandbox(a="honest") as skills, SkillAsks(local(), fresh_metrics()) as asks:
        asks.ask([question(skills, "a")])
        assert skills.last is not None
        assert not {"Signature-256", "SignatureCertChainUrl"} & set(skills.last.headers)


def test_a_key_that_cannot_sign_is_refused_and_never_shown(tmp_path: Path, key: RSAPrivateKey) -> None:
    bad = {
        "no private key": pem(key)[:300],
        "needs a passphrase": pem(key, b"word"),
        "no RSA key": pem(elliptic(SECP256R1())),
        "1024 bits": pem(generate_private_key(65_537, 1_024)),  # noqa: S505 that is the point
    }
    for reason, content in bad.items():
        file = tmp_path / "bad.pem"
        file.write_bytes(content)
        with pytest.raises(UsageError, match=reason) as caught:
            Signer(file, CHAIN)
        assert content.decode().splitlines()[1] not in repr(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        Signer(tmp_path / "absent.pem", CHAIN)
    (tmp_path / "good.pem").write_bytes(pem(key))
    assert repr(Signer(tmp_path / "good.pem", CHAIN)) == f"Signer({CHAIN})"
