"""Keys that people think up are refused, and keys that a machine draws by lot are not."""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Callable

import pytest

from patroni_node import strength

THOUGHT_UP = [
    "patroni-prod-db-2026",
    "Winter2026!Winter2026!",
    "P@ssw0rdP@ssw0rd",
    "pg-15-cluster-key",
    "1234567890abcdefg",
    "iloveyouiloveyou1",
    "correct horse battery staple",
    "correcthorsebatterystaple",
    "CorrectHorseBatteryStaple",
    "To be, or not to be: that is the question.",
    "tobeornottobethatisthequestion",
    "sein oder nichtsein das ist hier die frage",
    "seinodernichtseindasisthierdiefrage",
    "быть или не быть вот в чём вопрос",
    "бытьилинебытьвотвчёмвопрос",
    "four score and seven years ago our fathers brought forth on this continent",
    "The quick brown fox jumps over the lazy dog",
    "съешь ещё этих мягких",
    "Ich liebe meine Frau und unsere drei Kinder!",
    "ThisIsTheSecretKeyOfOurProductionCluster",
    "staging-cluster-berlin-postgres-15-2026!",
    "MyCompany-Postgres-Cluster-Key-2026",
    "p.o.s.t.g.r.e.s.c.l.u.s.t.e.r",
    "P a t r o n i C l u s t e r K e y",
    "qqwweerrttyyuuiiooppaassddff",
    "a1b2c3d4e5f6g7h8i9j0k1l2",
    "31415926535897932384626433832795",
    "%70%61%74%72%6f%6e%69%2d%70%72%6f%64",
    "acme-prod-eu-west-1-patroni-key-v2",
    "Donaudampfschifffahrtsgesellschaft",
    "NeverGonnaGiveYouUp1987",
    "P0stgr3sql-Pr0duct10n!",
    "K3yF0rPr0dDatabas3Clust3r",
    "Tr0ub4dor&3Tr0ub4dor&3",
    "drowssapretsulcnoitcudorp",
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb",
    "QWERTZuiop1234567890",
    "!@#$%^&*()_+{}:<>?",
    "x7Kq9x7Kq9x7Kq9x7Kq9",
    "ashdjkashdkjashdkjashd",
    "abcabcabcabcabcabcabcabc",
    "a" * 64,
    "2026-11-30T15:10:53Z",
    "20261130-20261201-20261202",
    "4938271650493827",
    "0123456789abcdef0123456789abcdef",
    "deadbeefdeadbeefdeadbeefcafebabe",
    b"patroni-prod-db-2026".hex(),
    "cGF0cm9uaS1wcm9kLWRiLTIwMjY=",
    base64.b64encode(base64.b64encode(b"patroni-prod-db-2026")).decode(),
    base64.b32encode(b"secret of the prod").decode(),
    "c232ab00-9414-11ec-b3c8-9f6bdeced846",
    "6fa459ea-ee8a-3ca4-894e-db77e160355e",
    "00000000-0000-0000-0000-000000000001",
    "<at least 16 chars>",
    "replace-with-a-long-random-key",
    "Musterstrasse 12, 10115 Berlin",
    "",
    " " * 40,
]


@pytest.mark.parametrize("key", THOUGHT_UP)
def test_a_key_thought_up_by_a_person_is_refused(key: str) -> None:
    said = strength.weakness(key)
    assert said is not None
    assert f"{strength.KEY_BITS} are wanted: {strength.GENERATE}" in said
    assert not key.strip() or key not in said


def _bytes(lot: random.Random, size: int) -> str:
    return base64.b64encode(lot.randbytes(size)).decode()


def _drawn(alphabet: str, size: int) -> Callable[[random.Random], str]:
    return lambda lot: "".join(lot.choice(alphabet) for _ in range(size))


PRINTED = string.ascii_letters + string.digits + string.punctuation
WORDS = """
clause deepen ragweed footgear skimmer unmoral dawdler abridge pushpin boxcar outbid removed smashing amused
uniformed tasting backlog scuba huntsman handled plated pastrami circle respect gnarly yam ammonium yoga taps
deflation enlisted recycling labored sly thinly bucked dismiss kation natrium fessel marathon platz hase
""".split()  # noqa: SIM905
DRAWN: dict[str, Callable[[random.Random], str]] = {
    "openssl rand -base64 24": lambda lot: _bytes(lot, 24),
    "openssl rand -base64 16": lambda lot: _bytes(lot, 16),
    "openssl rand -hex 16": lambda lot: lot.randbytes(16).hex(),
    "secrets.token_urlsafe(24)": lambda lot: base64.urlsafe_b64encode(lot.randbytes(24)).decode(),
    "base32": lambda lot: base64.b32encode(lot.randbytes(16)).decode(),
    "uuidgen": lambda lot: str(uuid.UUID(bytes=lot.randbytes(16), version=4)),
    "pwgen -s 24": _drawn(string.ascii_letters + string.digits, 24),
    "pwgen -s -0 -A 25": _drawn(string.ascii_lowercase, 25),
    "apg -a 1 -m 24": _drawn(PRINTED, 24),
    "KeePass": _drawn(PRINTED, 20),
    "seven words": lambda lot: " ".join(lot.sample(WORDS, 7)),
    "seven words with dashes": lambda lot: "-".join(lot.sample(WORDS, 7)),
    "eight words run together": lambda lot: "".join(word.title() for word in lot.sample(WORDS, 8)),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_key_drawn_by_lot_is_taken(kind: str) -> None:
    lot = random.Random(kind)
    refused = [key for key in (DRAWN[kind](lot) for _ in range(40)) if strength.weakness(key) is not None]
    assert refused == []


def test_six_words_are_no_key_and_a_good_password() -> None:
    six = " ".join(random.Random(1).sample(WORDS, 6))
    assert strength.weakness(six) is not None
    assert strength.password_weakness(six) is None


@pytest.mark.parametrize(
    "password", ["Winter2026!", "P@ssw0rdP@ssw0rd", "replicator2026", "iloveyouiloveyou1", "hunter2hunter2"]
)
def test_a_password_thought_up_by_a_person_is_refused(password: str) -> None:
    said = strength.password_weakness(password)
    assert said is not None
    assert f"{strength.PASSWORD_BITS} are wanted" in said


def test_a_password_drawn_by_lot_is_taken() -> None:
    lot = random.Random("password")
    draw = _drawn(string.ascii_letters + string.digits, 12)
    assert [password for password in (draw(lot) for _ in range(200)) if strength.password_weakness(password)] == []


def test_only_the_begin_of_a_long_text_is_looked_at() -> None:
    long = _bytes(random.Random(1), 48 * 1024)
    assert strength.estimate(long) == strength.estimate(long[: strength.LOOKED_AT])
    assert strength.weakness(long) is None


def test_the_code_for_letters_is_no_shorter_than_a_code_can_be() -> None:
    # Kraft's inequality, without which the bound on refusing random texts would not hold.
    for row in strength._FOLLOWS:
        assert len(row) == 27
        assert sum(2 ** -(int(digit, 36) / 2) for digit in row) <= 1
