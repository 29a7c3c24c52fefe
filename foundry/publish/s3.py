"""A store in a bucket of S3, or of a service that speaks its language, by boto3.

An object appears at once when its upload is completed, never in part (S3's User Guide, "Data consistency model"). So
an upload goes to its final path, in parts that the server compares with their MD5 on arrival and that are compared with
its list of them before they become an object; after that the whole is read back.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)

from foundry.errors import ConfigError
from foundry.publish import stores
from foundry.publish.s3_answers import bound
from foundry.publish.s3_parts import TRIES, Multipart, content_type, md5, pages
from foundry.publish.stores import (
    INCOMING,
    UNFINISHED_DAYS,
    Missing,
    Options,
    StoreError,
    Taken,
    checked,
    damaged,
    too_large,
)

_CHUNK = 1 << 20
_POINTER = "no-cache"
_IMMUTABLE = "public, max-age=31536000, immutable"
# The errors' codes of services differ; "403" and "404" are those of HEAD, whose answer has no body.
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_TAKEN = {"PreconditionFailed", "412"}
_AT_ONCE = {"ConditionalRequestConflict", "OperationAborted", "409"}


class S3Store:
    """The store below a prefix of a bucket, which must be there. Credentials are looked for where boto3 always does."""

    def __init__(self, bucket: str, prefix: str, options: Options) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._creates = False

    # what a store does

    def size(self, path: str) -> int | None:
        """See Store."""
        try:
            with self._explained(checked(path)):
                return int(self._client.head_object(**self._at(path))["ContentLength"])
        except Missing:
            return None

    def read(self, path: str) -> bytes:
        """See Store."""
        found = bytearray()
        self._stream(checked(path), found.extend, stores.LARGEST)
        return bytes(found)

    def names(self, folder: str) -> list[str]:
        """See Store."""
        prefix, found = f"{self._prefix}{checked(folder)}/", set()
        with self._explained(folder):
            asked = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": "/"}
            for page in pages(self._client, self.url, "list_objects_v2", **asked):
                found |= {entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ())}
                found |= {entry["Prefix"].removeprefix(prefix) for entry in page.get("CommonPrefixes", ())}
        return sorted(name for name in found if name and not name.startswith("."))

    def download(self, path: str, target: Path, limit: int | None = None) -> None:
        """See Store."""
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as sink:
                self._stream(checked(path), sink.write, limit)
            os.chmod(name, 0o644)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)

    def upload(self, source: Path, path: str, digest: str) -> int:
        """See Store."""
        size = source.stat().st_size
        if self.size(path) == size:
            return 0
        with self._explained(path):
            if size <= self._options.part_size:
                self._put(self._client, path, source.read_bytes(), _IMMUTABLE)
                sent = size
            else:
                sent = self._multipart.send(source, path, size, whole=lambda: self.size(path) == size)
        found = hashlib.sha256()
        self._stream(path, found.update, size)
        if found.hexdigest() != digest:
            self.remove(path)
            raise damaged(source, digest, self.url)
        return sent

    def replace(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._explained(checked(path)):
            self._put(self._client, path, data, _POINTER)

    def create(self, path: str, data: bytes) -> None:
        """See Store. Raises StoreError where the service does not keep its word that only one of several succeeds."""
        with self._explained(checked(path)):
            self._need_conditions()
            for attempt in range(TRIES):
                outcome = self._put_new(path, data)
                if outcome in _TAKEN or (outcome in _AT_ONCE and self.size(path) is not None):
                    raise Taken(f"{path} is in {self.url} already")
                if not outcome:
                    return
                # Several at once, and none has won: AWS's documentation says to try again.
                time.sleep(random.uniform(0.1, 0.5) * (attempt + 1))  # noqa: S311 - no secret
        raise StoreError(f"{self.url}: others write {path} all the time", hint="run it again")

    def remove(self, path: str) -> None:
        """See Store. A bucket has no folders."""
        with self._explained(checked(path)):
            self._client.delete_object(**self._at(path))

    def sweep(self, days: float = UNFINISHED_DAYS) -> list[str]:
        """See Store."""
        oldest, swept = time.time() - days * 86400, []
        with self._explained(INCOMING):
            for left in self._multipart.uploads(self._prefix):
                if left["Initiated"].timestamp() <= oldest:
                    at = {"Bucket": self._bucket, "Key": left["Key"]}
                    self._client.abort_multipart_upload(**at, UploadId=left["UploadId"])
                    swept.append(str(left["Key"]).removeprefix(self._prefix))
            asked = {"Bucket": self._bucket, "Prefix": f"{self._prefix}{INCOMING}/"}
            for page in pages(self._client, self.url, "list_objects_v2", **asked):
                for entry in page.get("Contents", ()):
                    if entry["LastModified"].timestamp() <= oldest:
                        self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])
                        swept.append(str(entry["Key"]).removeprefix(self._prefix))
        return sorted(swept)

    def close(self) -> None:
        """See Store."""
        for name in ("_client", "_hasty"):
            client = self.__dict__.pop(name, None)
            if client:
                client.close()

    def _put(self, client: Any, path: str, data: bytes, cached: str, **conditions: str) -> None:
        client.put_object(
            **self._at(path),
            Body=data,
            ContentMD5=md5(data),
            ContentType=content_type(path),
            CacheControl=cached,
            **conditions,
        )

    # one of several

    def _put_new(self, path: str, data: bytes) -> str:
        """Write what must be new; returns "", or the code of the error that says that it is not."""
        try:
            self._put(self._hasty, path, data, _IMMUTABLE, IfNoneMatch="*")
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in _TAKEN or code in _AT_ONCE:
                return code
            raise
        return ""

    def _need_conditions(self) -> None:
        """Try whether the service honours If-None-Match, also of those who write at the same moment."""
        for attempt in range(0 if self._creates else TRIES):
            try:
                won, last = self._race()
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status >= 500 and status != 501 and attempt + 1 < TRIES:
                    continue
                # RFC 9110: what a server answers that does not know, or take, such a request.
                if status not in (400, 405, 501):
                    raise
                won, last = 0, str(error.response["Error"]["Code"])
            if won != 1 or last not in _TAKEN:
                raise StoreError(
                    f"{self.url}: this service does not honour If-None-Match",
                    details=f"of {TRIES} who made one object at once {won} were told that they did; "
                    f"one after them was told {last or 'so, too'}",
                    hint="two who publish at once could undo each other's work; docs/stores.md names fit services",
                )
            self._creates = True
            return

    def _race(self) -> tuple[int, str]:
        """How many of several who make one object at once are told that they did, and what one after them is told."""
        path = f"{INCOMING}/probe-{secrets.token_hex(8)}"
        together = threading.Barrier(TRIES)

        def run(data: bytes) -> str:
            together.wait(self._options.timeout)
            return self._put_new(path, data)

        try:
            with ThreadPoolExecutor(TRIES) as pool:
                won = list(pool.map(run, (bytes([n]) for n in range(TRIES)))).count("")
            if not won:
                won += self._put_new(path, b"later") == ""
            return won, self._put_new(path, b"last")
        finally:
            self._client.delete_object(**self._at(path))

    # how it speaks with the service

    @property
    def _multipart(self) -> Multipart:
        headers = {"CacheControl": _IMMUTABLE}
        return Multipart(self._client, self.url, self._bucket, self._at, self._options.part_size, headers)

    @cached_property
    def _client(self) -> Any:
        return self._connected(TRIES)

    @cached_property
    def _hasty(self) -> Any:
        """For what must not be tried twice: the second try would meet what the first one has made."""
        return self._connected(1)

    def _connected(self, tries: int) -> Any:
        endpoint = self._options.endpoint or None
        config = Config(
            connect_timeout=min(20.0, self._options.timeout),
            read_timeout=self._options.timeout,
            retries={"mode": "standard", "total_max_attempts": tries},
            # Services other than AWS know neither its newer checksums nor, always, a name for each bucket.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if endpoint else {},
        )
        try:
            region = self._options.region or None
            client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)
        except (ValueError, BotoCoreError) as error:
            raise ConfigError(
                f"{self.url}: {error}", hint="publish.endpoint is the service's URL, https:// included"
            ) from error
        bound(client, self.url)
        return client

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + path}

    def _stream(self, path: str, write: Callable[[bytes], object], limit: int | None = None) -> None:
        """Give an object's bytes to write, going on where a connection broke, up to limit."""
        offset, part = 0, dict[str, str]()
        with self._explained(path):
            for attempt in range(TRIES):
                try:
                    answer = self._client.get_object(**self._at(path), **part)
                    for chunk in answer["Body"].iter_chunks(_CHUNK):
                        if limit is not None and offset + len(chunk) > limit:
                            answer["Body"].close()
                            raise too_large(path, limit, self.url)
                        write(chunk)
                        offset += len(chunk)
                        part = {"Range": f"bytes={offset}-", "IfMatch": answer["ETag"]}
                    return
                except (HTTPClientError, IncompleteReadError):
                    if attempt + 1 == TRIES or not offset:
                        raise

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in _ABSENT:
                raise Missing(f"{self.url} has no {path}") from error
            hint = None
            if code == "NoSuchBucket":
                hint = "make the bucket first, or correct its name, publish.endpoint or publish.region"
            elif code in _REFUSED:
                hint = "docs/stores.md says which rights a publisher needs, and where credentials are looked for"
            elif code == "RequestTimeTooSkewed":
                hint = "this host's clock is wrong"
            raise StoreError(f"{self.url}: {path}: refused: {code}", details=str(error), hint=hint) from error
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
            raise StoreError(
                f"{self.url}: no credentials: {error}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and ~/.aws/credentials",
            ) from error
        except BotoCoreError as error:
            raise StoreError(
                f"{self.url}: no connection",
                details=str(error),
                hint="is the service up, and reachable from here? What was sent is kept: run it again",
            ) from error
