"""How hard a key is to guess for who knows how people think keys up.

Debian has python3-zxcvbn, which was tried first. It counts every character that it knows nothing about as ten guesses:
128 bits from `openssl rand -base64 16` are 79.7 there, and a sentence in German or Russian has 108 to 138.
It takes 36 ms to load, which is most of a second on a machine that is emulated. What is here counts in the same
way (words, walks on the keyboard, repetitions, dates, the cheapest way to put them together), with two differences:

- Whether a text is language is asked of how letters follow each other, not of a list of words. The question is
  "does a code for what people write make this text LANGUAGE_GAIN bits shorter than one for random characters does?".
  By that code alone a random text passes for language with a probability of 2 ** -LANGUAGE_GAIN at most. The other
  signs of language are counted in samples: none of some ten thousand keys of each common generator had them.
- Everything else is nearly a code too: there are few descriptions below 80 bits, so a random text
  of 120 bits and more is not refused. One of 95 (sixteen letters and digits) is, two times in a thousand.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from patroni_node.word_lists import FAMILIAR, GLUE, KNOWN, LISTS, lengths, prices

KEY_BITS = 80
PASSWORD_BITS = 50

GENERATE = "make one with `openssl rand -base64 24`"

LOOKED_AT = 128
"""Characters that have to be strong enough. The rest is not looked at: time grows with the square of the length."""

LANGUAGE_GAIN = 22
WORD = 12.9
"""Bits of a word among the 7776 of a list, so that seven that were drawn by lot are enough and six are not."""
SENTENCE_WORD = 4.0
"""Bits of a word in a sentence, where a model of language foresees the next one."""
KNOWN_WORD = 10.0
"""The same of a word that everybody thinks of; a list for passphrases has some of these too."""
RUN_TOGETHER = 1.65
"""Bits of a letter in a run of words without anything between them."""
LONGEST_WORD = 12
MOST_DECODED = 3

_WALKS = tuple(row[::way] for row in LISTS["rows"] for way in (1, -1))
_WALK = 10.0

_UNLISTED = 0.6
_LISTED = 1.6 + math.log2(len(FAMILIAR))
_PLAIN_CASE = 2.0

_LEET = str.maketrans("01345789@$!|", "oieastbgasil")
_LEET_LETTERS = frozenset("oieastbgl")

# For each of " abc…xyz" the cost of what follows it, of the same 27, in half bits as a digit of base 36: counted in
# words of English, German and French, accents left out; " " is the begin and the end of a word.
_FOLLOWS = (
    "m88889999abb98bb8f879cbakfe", "7ga9afdbc9id795jbi687acehcf", "c6bgf4gee7fg7gf7hi6ad8gfibf",
    "a6ich7jh48k79hh6jg9e9ajjkci", "47ghc4gdf6hicef8ij9agagdkci", "6adb8bdceajg8a6eci569eddecd",
    "97fhg67dg6hg7ff6gh7b88hfhdf", "57fig4hb98ig9fb9ii79c9ifidh", "75fih4hgf6jhbca7ik9c9ajdkbi",
    "b9d7a7c9iiie8a58dfa67gbkhjc", "d4fef5ffe9eeeef4efeef6effef", "67egg4ffc6ge9ea8fha89agehcg",
    "76efa5efh5ke6df8fliaaaeil9h", "74aci5hhi6kif9f78jhafajhkcj", "58ea76d6f8hcfh9ahig87deglde",
    "9dbaaedbcchd894aah6998bafdf", "a6fhh5ci87ih8gh78i69a9ihjei", "babbbbbccbccbbbbccccc2cbccc",
    "76cca5ebf6iccbb7eia98aefkbf", "39f9i7gg98kddcf9bhh86bheleh", "67gdi4gg86kicfg8hl899aielbc",
    "ca99a8aadahe786fah668ifhfge", "d6hgg2ggh5hgfgg7ghdegeghheh", "85ege5fg75hece97ghaafbhfhdg",
    "68c8d7cda6ddbcda6ddc7bcdcbd", "29dbc9gegbhg9a89bhb9cegehhg", "47def5eec7fecde9effeb6ebfcb",
)  # fmt: skip

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-([1-8])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_BITS = {"1": 45.0, "2": 45.0, "3": 40.0, "5": 40.0, "6": 45.0, "7": 74.0}
"""Versions made of a clock and an address, or of a name; 4 is drawn by lot and counted like any other text."""

_DATE = re.compile(
    r"(?P<day>(?:19|20)\d\d[-./]?(?:0[1-9]|1[0-2])[-./]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./]?(?:0?[1-9]|1[0-2])[-./]?(?:19|20)\d\d)"
    r"|(?P<time>(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?)|(?P<year>(?:19|20)\d\d)"
)
_PLACEHOLDER = re.compile(r"<[A-Za-z0-9 _-]+>")
_PLACEHOLDER_BITS = 20.0

_DATE_BITS = {"day": 16.0, "time": 17.0, "year": 8.0}

_WORDS = re.compile(r"[^\W\d_a-z]?[^\W\d_A-Z]+|[^\W\d_]+")


def weakness(text: str) -> str | None:
    """Return why a key is refused (never quoting it), or None for a good one.

    80 bits, since who hears one message of gossip tries keys out offline, and every credential of the cluster comes
    from this one. Half of that takes a million machines with ten million guesses a second two thousand years.
    """
    return _refused(text, KEY_BITS)


def password_weakness(text: str) -> str | None:
    """Return why a password that is given beside the key is refused (never quoting it), or None for a good one.

    50 bits, since it opens one account and not the cluster, is tried out on a server that has to answer, and is kept
    as SCRAM's verifier: who has stolen that pays 4096 iterations, another 13 bits, for each guess. What
    `pwgen -s 12` prints is more than enough; what people think up in one breath is not.
    """
    return _refused(text, PASSWORD_BITS)


def _refused(text: str, least: int) -> str | None:
    found = estimate(text)
    if found >= least:
        return None
    return f"can be guessed: it is worth about {int(found)} bits, and {least} are wanted: {GENERATE}"


def estimate(text: str) -> float:
    """Return the bits that guessing a text takes, at most; random texts lose next to nothing of theirs."""
    return _estimate(unicodedata.normalize("NFC", text).strip()[:LOOKED_AT], MOST_DECODED)


def _estimate(text: str, decoded: int) -> float:
    uuid = _UUID.fullmatch(text.strip("{}"))
    if uuid is not None and uuid[1] in _UUID_BITS:
        return _UUID_BITS[uuid[1]]
    if _PLACEHOLDER.fullmatch(text):
        return _PLACEHOLDER_BITS
    found = [_halves(text)]
    for view, price in _views(text):
        saved = 0.0
        if _is_disguised(text, view):
            # Listed words in disguise are found without it, and an alphabet of fewer characters would mislead.
            bits = math.inf
        else:
            bits, saved = _cheapest(view)
        found.append(bits + price)
        if saved >= LANGUAGE_GAIN or _is_language(text, view):
            found.append(price + _words(view))
    if decoded:
        found += [2 + _estimate(inner, decoded - 1) for inner in _decodings(text)]
    return min(found)


def _views(text: str) -> Iterator[tuple[str, float]]:
    yield text, 0.0
    plain = text.translate(_LEET)
    yield plain, float(sum(a != b for a, b in zip(text, plain, strict=True)))
    yield text[::-1], 1.0


def _halves(text: str) -> float:
    """Return the bits of a text that is two, of which each gives every other character, or of one with each twice."""
    even, odd = text[::2], text[1::2]
    if len(text) < 8 or (len(set(odd)) > 1 and even[: len(odd)] != odd):
        return 1 + _cheapest(even)[0] + _cheapest(odd)[0] if odd else math.inf
    return 6 + _estimate(even, 0)


def _is_disguised(text: str, view: str) -> bool:
    return view not in (text, text[::-1])


def _decodings(text: str) -> Iterator[str]:
    """Yield what a text says once an encoding is taken off; random bytes are hardly ever text."""
    packed = re.sub(r"[\s:-]", "", text)
    padding = "=" * (-len(text.rstrip("=")) % 4)
    bare, url = packed.rstrip("="), b"-_" if set(text) & set("-_") else None
    attempts: tuple[Callable[[], bytes], ...] = (
        lambda: unquote_to_bytes(text) if "%" in text else b"",
        lambda: bytes.fromhex(packed.removeprefix("0x")),
        lambda: base64.b64decode(text.rstrip("=") + padding, altchars=url, validate=True),
        lambda: base64.b32decode(bare + "=" * (-len(bare) % 8), casefold=True),
    )
    for attempt in attempts:
        try:
            inner = attempt().decode()
        except (binascii.Error, ValueError):
            continue
        inner = inner.strip()
        if len(inner) >= 4 and inner.isprintable() and inner != text:
            yield inner


def alphabet(text: str) -> int:
    """Return the size of the smallest set of characters that a text may have been drawn from."""
    bare = text.rstrip("=")
    for digits in ("0123456789", "0123456789abcdef-", "0123456789ABCDEF-"):
        if bare and set(bare) <= set(digits):
            return len(digits.rstrip("-"))
    others = {char for char in bare if not (char.isascii() and char.isalnum())}
    foreign = sum(char.isalpha() for char in others)
    size = 26 * any("a" <= char <= "z" for char in bare) + 26 * any("A" <= char <= "Z" for char in bare)
    size += 10 * any("0" <= char <= "9" for char in bare) + len(others) - foreign + 32 * bool(foreign)
    return max(size, 2)


def _cheapest(text: str) -> tuple[float, float]:
    """Return the bits of the cheapest way to put a text together, and those of them that its words saved.

    A text is put together from characters, words, walks, dates and repetitions.
    """
    folded = text.lower() if len(text.lower()) == len(text) else text
    size = len(text)
    each = math.log2(alphabet(text))
    common = _common_prefixes(folded)
    best = [(0.0, 0.0)] + [(math.inf, 0.0)] * size
    for at in range(size):
        steps = [(1, each if text[at] != "=" else 0.0, 0.0)]
        steps += [(length, 2 * math.log2(size), 0.0) for length in (common[at],) if length >= 3]
        steps += [(length, _WALK + math.log2(length), 0.0) for length in _walk_lengths(folded, at)]
        steps += [(length, _DATE_BITS[kind], 0.0) for length, kind in _dates(folded, at)]
        for length in _word_lengths(folded[at : at + 2].translate(_LEET)):
            price = _listed(text[at : at + length], length)
            if price is not None:
                steps.append((length, price, length * each - price))
        bits, saved = best[at]
        for length, price, gain in steps:
            if bits + price < best[at + length][0]:
                best[at + length] = (bits + price, saved + gain)
    return best[size]


def _common_prefixes(text: str) -> list[int]:
    """Return for each place how many characters from there on were there before already."""
    size = len(text)
    longest = [0] * size
    below = [0] * (size + 1)
    for at in range(size - 1, -1, -1):
        row = [0] * (size + 1)
        for before in range(size):
            if text[at] == text[before]:
                row[before] = below[before + 1] + 1
        longest[at] = max(row[:at], default=0)
        below = row
    return longest


def _walk_lengths(text: str, at: int) -> Iterator[int]:
    start = text[at : at + 4]
    if len(start) < 4:
        return
    for row in _WALKS:
        place = row.find(start)
        if place >= 0:
            length = 4
            while text[at + length : at + length + 1] and row[place : place + length + 1] == text[at : at + length + 1]:
                length += 1
            yield length


def _dates(text: str, at: int) -> Iterator[tuple[int, str]]:
    found = _DATE.match(text, at)
    if found is not None:
        yield found.end() - at, found.lastgroup or "year"


def _word_lengths(start: str) -> list[int]:
    """Return the lengths of the words that may begin with two letters, of which an i may stand for an l."""
    known = lengths()
    return sorted({*known.get(start, ()), *known.get(start.replace("i", "l"), ())})


def _listed(part: str, length: int) -> float | None:
    if len(part) < length:
        return None
    folded = part.casefold()
    price = prices().get(folded)
    if price is not None:
        return price + _case(part)
    plain = folded.translate(_LEET)
    if plain == folded:
        return None
    price = prices().get(plain) or prices().get(plain.replace("i", "l"))
    return (
        None if price is None else price + _case(part) + 1.5 * sum(a != b for a, b in zip(folded, plain, strict=False))
    )


def _case(word: str) -> float:
    if word.islower():
        return 0.6
    if word.istitle() or word.isupper():
        return _PLAIN_CASE
    return 3.0 + len(word)


def _is_language(text: str, view: str) -> bool:
    """Tell whether a code for what people write is shorter by LANGUAGE_GAIN bits than one for random characters."""
    if sum(char.isalpha() and not char.isascii() for char in text) >= 4:
        return True
    leet = _is_disguised(text, view)
    if not leet and _looks_like_words(view):
        return True
    random = len(text.rstrip("=")) * math.log2(alphabet(text))
    code, end = 0.0, 0
    seen: set[str] = set()
    for word in _WORDS.finditer(view):
        code += _between(view[end : word.start()], seen) + 2 + _case(word[0]) + _letters(word[0])
        if leet:
            code += _disguise(text[word.start() : word.end()], word[0])
        end = word.end()
    code += _between(view[end:], seen)
    return random - code >= LANGUAGE_GAIN


def _looks_like_words(view: str) -> bool:
    """Tell whether a separator stands between words, which of all generators only those of passphrases do."""
    for separator in " -_.":
        pieces = view.split(separator)
        words = [piece for piece in pieces if len(piece) > 1 and piece.isalpha() and _case(piece) <= _PLAIN_CASE]
        if len(words) >= 3 and sum(map(len, words)) * 4 >= (len(view) - len(pieces)) * 3:
            return True
    return False


def _between(text: str, seen: set[str]) -> float:
    """Return the bits of what is not letters: a separator that was there before is hardly news."""
    bits = 0.0
    for char in text:
        if char.isdigit():
            bits += 1 + math.log2(10)
        elif char in seen:
            bits += 2.5
        else:
            bits += 3 + math.log2(33)
            seen.add(char)
    return bits


def _letters(word: str) -> float:
    listed = _LISTED if word.casefold() in FAMILIAR else math.inf
    bits, before = _UNLISTED, 0
    for char in _latin(word) + " ":
        now = ord(char) - 96 if "a" <= char <= "z" else 0
        bits += int(_FOLLOWS[before][now], 36) / 2
        before = now
    return min(bits, listed)


def _latin(word: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", word.lower()) if "a" <= char <= "z")


def _disguise(text: str, view: str) -> float:
    return sum(
        (0.2 if old == new else 3.0) for old, new in zip(text, view, strict=True) if new.lower() in _LEET_LETTERS
    )


def _words(view: str) -> float:
    """Return the bits of a text that is language: by words, and by fewer bits for each where they are a sentence."""
    words = [(word[0].casefold(), word[0]) for word in _WORDS.finditer(view)]
    glue = sum(folded in GLUE for folded, _ in words)
    # Each share is one that seven words drawn by lot have less than once in a million times.
    sentence = len(words) >= 4 and glue * (3 if glue < 3 else 4) >= len(words)
    named = sum(folded in KNOWN for folded, _ in words) * 2 > len(words)
    repeats = (len(words) - len({folded for folded, _ in words})) * 3 >= len(words)
    bits, seen = 0.0, set[str]()
    for folded, word in words:
        letters = len(folded) * math.log2(26)
        if folded in seen and (repeats or sentence):
            cost = 2.0
        elif sentence:
            cost = SENTENCE_WORD
        elif named and folded in FAMILIAR:
            cost = KNOWN_WORD
        elif len(folded) > LONGEST_WORD:
            cost = max(WORD, RUN_TOGETHER * len(folded))
        else:
            cost = WORD
        bits += min(letters, cost)
        if _case(word) > _PLAIN_CASE:
            bits += 1
        seen.add(folded)
    rest = _WORDS.sub(" ", view)
    return bits + sum(_cheapest(part)[0] for part in dict.fromkeys(re.findall(r"[^\s]+", rest)))
