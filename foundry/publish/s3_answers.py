"""What a service of S3's answers beside the contents of objects: botocore takes all of it into memory, however much."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import HTTPClientError
from urllib3.exceptions import HTTPError

from foundry.publish.stores import too_large

# A page of a listing has a thousand names, of a kilobyte each at most.
LARGEST = 4 << 20


def bound(client: Any, url: str) -> None:
    """Let a client of boto3's read no more of an answer than any has; StoreError is raised instead. url: for that."""
    http = client._endpoint.http_session
    send = http.send

    def bounded(request: Any) -> Any:
        streamed, request.stream_output = request.stream_output, True
        answer = send(request)
        # An error is read whole as well, whatever was asked for.
        if not streamed or answer.status_code >= 300:
            answer._content = _read(answer.raw, url)
        return answer

    http.send = bounded


def _read(raw: Any, url: str) -> bytes:
    found = bytearray()
    try:
        for chunk in raw.stream():
            found += chunk
            if len(found) > LARGEST:
                raw.close()
                raise too_large("an answer of the service", LARGEST, url)
    except HTTPError as error:
        # As botocore tells it, which tries again then.
        raise HTTPClientError(error=error) from error
    return bytes(found)
