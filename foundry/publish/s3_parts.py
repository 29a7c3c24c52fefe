"""Uploads to S3 in parts, which go on where they broke off: what the server has of a file is not sent again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from foundry.errors import CorruptArtifact
from foundry.publish.stores import StoreError

TRIES = 4
# S3's limit (User Guide, "Amazon S3 multipart upload limits").
_MOST_PARTS = 10_000
# Of a thousand entries each (API Reference, ListObjectsV2), and of s3_answers.LARGEST bytes at most.
MOST_PAGES = 100
_TYPES = {
    ".asc": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".xml": "application/xml",
}


@dataclass(frozen=True)
class Multipart:
    """Of one store. client: boto3's. at: a path's bucket and key. part_size: bytes. headers: of what is made."""

    client: Any
    url: str
    bucket: str
    at: Callable[[str], dict[str, str]]
    part_size: int
    headers: Mapping[str, str]

    def send(self, source: Path, path: str, size: int, *, whole: Callable[[], bool]) -> int:
        """Upload in parts, without those that an unfinished upload has already; returns the bytes sent.

        Several who bring the same file go on with the same upload: it ends for all when one completes it.
        whole: whether the file is there.
        """
        sent = tries = 0
        while True:
            try:
                for count in self._parts_sent(source, path, size):
                    sent += count
                return sent
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise
                # It is complete (or the answer to a first try was lost), or somebody has found it damaged.
                if whole():
                    return sent
                tries += 1
                if tries == TRIES:
                    raise

    def _parts_sent(self, source: Path, path: str, size: int) -> Iterator[int]:
        """Send what an upload lacks and complete it; gives the bytes of each part that was sent."""
        length = part_length(size, self.part_size)
        upload, have = self._unfinished(source, path, length)
        wanted: dict[int, str] = {}
        with source.open("rb") as stream:
            for number, data in enumerate(iter(lambda: stream.read(length), b""), 1):
                if number in have:
                    wanted[number] = have[number]
                else:
                    wanted[number] = self._send_part(path, upload, number, data)
                    yield len(data)
        listed = self._parts(path, upload)
        if any(listed.get(number) != tag for number, tag in wanted.items()):
            raise CorruptArtifact(
                f"{source.name}: {self.url} lists other parts than it was sent",
                hint="run it again: it sends them anew",
            )
        done = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in wanted.items()]
        self.client.complete_multipart_upload(**self.at(path), UploadId=upload, MultipartUpload={"Parts": done})

    def _unfinished(self, source: Path, path: str, length: int) -> tuple[str, dict[int, str]]:
        """An upload to go on with, a new one where there is none, and the parts that it has."""
        at = self.at(path)
        old = [u for u in self.uploads(at["Key"]) if u["Key"] == at["Key"]]
        for upload in sorted(old, key=lambda u: u["Initiated"], reverse=True):
            have = self._parts(path, upload["UploadId"])
            if _are_of(source, length, have):
                return upload["UploadId"], have
            # Damaged, or of another file. Not every service lists a part that was sent twice as it is now.
            self.client.abort_multipart_upload(**at, UploadId=upload["UploadId"])
        made = self.client.create_multipart_upload(**at, ContentType=content_type(path), **self.headers)
        return made["UploadId"], {}

    def uploads(self, prefix: str) -> list[dict[str, Any]]:
        """Those that nobody has completed yet, of keys that begin with prefix."""
        listing = pages(self.client, self.url, "list_multipart_uploads", Bucket=self.bucket, Prefix=prefix)
        return [entry for page in listing for entry in page.get("Uploads", ())]

    def _parts(self, path: str, upload: str) -> dict[int, str]:
        """The ETags of an upload's parts: their MD5, which the server has computed, unless it encrypts by a KMS."""
        listing = pages(self.client, self.url, "list_parts", **self.at(path), UploadId=upload)
        return {p["PartNumber"]: p["ETag"].strip('"') for page in listing for p in page.get("Parts", ())}

    def _send_part(self, path: str, upload: str, number: int, data: bytes) -> str:
        answer = self.client.upload_part(
            **self.at(path), UploadId=upload, PartNumber=number, Body=data, ContentMD5=md5(data)
        )
        return str(answer["ETag"]).strip('"')


def pages(client: Any, url: str, what: str, **asked: Any) -> Iterator[Mapping[str, Any]]:
    """The pages of a listing. Raises StoreError for one that never ends, which would take all memory."""
    for number, page in enumerate(client.get_paginator(what).paginate(**asked), 1):
        if number > MOST_PAGES:
            raise StoreError(f"{url}: the service lists more than {MOST_PAGES} pages", hint="is it out of order?")
        yield page


def part_length(size: int, least: int) -> int:
    """The length of the parts of a file, the same at every try: least, or more where those would be too many."""
    mebibytes = -(-size // _MOST_PARTS) + (1 << 20) - 1 >> 20
    return max(least, mebibytes << 20)


def _are_of(source: Path, length: int, parts: dict[int, str]) -> bool:
    """Whether parts, numbers to MD5, are those of a file in parts of this length."""
    with source.open("rb") as stream:
        for number, tag in parts.items():
            stream.seek((number - 1) * length)
            if hashlib.md5(stream.read(length), usedforsecurity=False).hexdigest() != tag:
                return False
    return True


def content_type(path: str) -> str:
    """What a web browser shall take a file for."""
    return _TYPES.get(Path(path).suffix, "application/octet-stream")


def md5(data: bytes) -> str:
    """As RFC 1864 has it: what the server refuses the data by if it arrives otherwise."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
