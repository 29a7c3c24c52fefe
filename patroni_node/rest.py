"""Questions by HTTP, to Patroni's REST API and to the store: each ends within seconds, whatever the other side does."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_SECONDS = 2.0
LIMIT_SECONDS = 2.5
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Trust:
    """How an https server is believed, and what it is shown; the system's authorities where no CA is given.

    ca: PEM text. ca_file, certificate, key: paths.
    """

    ca: str | None = None
    ca_file: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


@dataclass(frozen=True)
class Question:
    """What is asked where; headers may hold a token, so the repr leaves them out."""

    url: str
    trust: Trust | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Answer:
    """What came back: a status code and the JSON of the body (None where it is none), or why nothing did."""

    code: int | None = None
    body: Any = None
    failure: str = ""


Ask = Callable[[Question], Answer]


def ask(question: Question) -> Answer:
    """Ask once, by no proxy; never raises for what the other side or the network does."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _Straight()]
    try:
        if question.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_context(question.trust or Trust())))
        # No other scheme is ever in a question.
        request = urllib.request.Request(question.url, headers=dict(question.headers))  # noqa: S310
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return Answer(answer.status, _json(answer.read(MAX_BYTES)))
    except urllib.error.HTTPError as error:
        # Patroni tells of a member that does not run by 503, and of its state in the body.
        with error:
            return Answer(error.code, _rest(error))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Answer(failure=_reason(error))


def ask_all(questions: Sequence[Question], ask: Ask = ask) -> Callable[[], list[Answer]]:
    """Start asking several at once.

    Returns:
        A function that waits for the answers, LIMIT_SECONDS from now at most. What has not ended by then (a name that
        does not resolve, a server that sends a byte now and then) is left behind and does not hold up the program.
    """
    found: dict[int, Answer] = {}

    def one(number: int, question: Question) -> None:
        found[number] = ask(question)

    threads = [threading.Thread(target=one, args=item, daemon=True) for item in enumerate(questions)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT_SECONDS

    def wait() -> list[Answer]:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [found.get(number, Answer(failure="timed out")) for number in range(len(questions))]

    return wait


def ask_briefly(question: Question) -> Answer:
    """Ask once, and wait LIMIT_SECONDS at most, also for a server that sends a byte now and then."""
    return ask_all([question])()[0]


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere, where tokens would go as well: neither Patroni nor a store leads away."""

    def redirect_request(self, *_: object) -> None:
        """Make a redirect the answer."""


def _context(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust.ca_file, cadata=trust.ca)
    if trust.certificate:
        context.load_cert_chain(trust.certificate, trust.key)
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _rest(error: urllib.error.HTTPError) -> Any:
    try:
        return _json(error.read(MAX_BYTES))
    except (OSError, http.client.HTTPException):
        return None


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _reason(error: BaseException) -> str:
    """A few words; of what a library says only what cannot quote a secret."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or type(cause).__name__}"
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, OSError) and cause.strerror:
        where = f"{cause.filename}: " if cause.filename else ""
        return where + cause.strerror.lower()
    return type(cause).__name__
