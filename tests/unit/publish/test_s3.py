"""Uploads in parts, and services that answer otherwise than AWS. The answers are botocore's own stub's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from foundry.errors import ConfigError, CorruptArtifact
from foundry.publish.s3 import S3Store
from foundry.publish.s3_parts import content_type, part_length
from foundry.publish.stores import Options, StoreError, Taken

MIB = 1 << 20
AT = {"Bucket": "bucket", "Key": "pre/images/a"}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def store() -> S3Store:
    return S3Store("bucket", "pre", Options(region="us-east-1", part_size=5 * MIB))


@pytest.fixture
def answers(store: S3Store) -> Iterator[Stubber]:
    with Stubber(store._client) as stub:
        yield stub
        stub.assert_no_pending_responses()


@given(size=st.integers(0, 5 << 40), least=st.integers(5, 64).map(lambda n: n * MIB))
def test_parts_are_neither_too_many_nor_too_small(size: int, least: int) -> None:
    length = part_length(size, least)
    assert length >= least
    assert length % MIB == 0
    assert size <= length * 10_000
    assert length == least or length - MIB < size / 10_000


def test_types_for_browsers() -> None:
    assert content_type("images/a/index.html") == "text/html; charset=utf-8"
    assert content_type("images/a/disk.qcow2") == "application/octet-stream"


def test_names_of_many_pages(store: S3Store, answers: Stubber) -> None:
    asked = {"Bucket": "bucket", "Prefix": "pre/images/", "Delimiter": "/"}
    first = {
        "IsTruncated": True,
        "NextContinuationToken": "more",
        "Contents": [{"Key": "pre/images/"}, {"Key": "pre/images/b"}, {"Key": "pre/images/.hidden"}],
        "CommonPrefixes": [{"Prefix": "pre/images/c/"}],
    }
    second = {"IsTruncated": False, "Contents": [{"Key": "pre/images/a"}]}
    answers.add_response("list_objects_v2", first, asked)
    answers.add_response("list_objects_v2", second, {**asked, "ContinuationToken": "more"})
    assert store.names("images") == ["a", "b", "c/"]


def test_names_without_end(store: S3Store, answers: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page says that another one comes: all memory went, and no time was enough."""
    monkeypatch.setattr("foundry.publish.s3_parts.MOST_PAGES", 3)
    for number in range(4):
        page = {"IsTruncated": number < 3, "NextContinuationToken": str(number), "Contents": []}
        answers.add_response("list_objects_v2", page)
    with pytest.raises(StoreError, match="lists more than 3 pages"):
        store.names("images")


def unfinished(answers: Stubber, *uploads: tuple[str, int]) -> None:
    listed = [
        {"Key": AT["Key"], "UploadId": name, "Initiated": datetime(2026, 11, day, tzinfo=UTC)} for name, day in uploads
    ]
    other = {"Key": "pre/images/ab", "UploadId": "another", "Initiated": datetime(2026, 11, 30, tzinfo=UTC)}
    answers.add_response(
        "list_multipart_uploads", {"Uploads": [*listed, other]}, {"Bucket": "bucket", "Prefix": AT["Key"]}
    )


def parts(answers: Stubber, upload: str, *listed: bytes) -> None:
    found = [{"PartNumber": n, "ETag": f'"{md5(data)}"'} for n, data in enumerate(listed, 1)]
    answers.add_response("list_parts", {"Parts": found}, {**AT, "UploadId": upload})


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def sent(answers: Stubber, upload: str, number: int, data: bytes, tag: str = "") -> None:
    asked = {**AT, "UploadId": upload, "PartNumber": number, "Body": data, "ContentMD5": ANY}
    answers.add_response("upload_part", {"ETag": f'"{tag or md5(data)}"'}, asked)


def whole(answers: Stubber, data: bytes) -> None:
    body = StreamingBody(io.BytesIO(data), len(data))
    answers.add_response("get_object", {"Body": body, "ETag": '"x"'}, AT)


def three_parts(folder: Path) -> tuple[Path, list[bytes], bytes]:
    pieces = [bytes([n]) * size for n, size in enumerate((5 * MIB, 5 * MIB, 100))]
    path = folder / "source"
    path.write_bytes(b"".join(pieces))
    return path, pieces, b"".join(pieces)


def test_the_newest_whole_upload_goes_on_and_damaged_ones_end(store: S3Store, answers: Stubber, tmp_path: Path) -> None:
    source, pieces, data = three_parts(tmp_path)
    answers.add_client_error("head_object", "404", http_status_code=404)
    unfinished(answers, ("old", 1), ("damaged", 3), ("good", 2))
    parts(answers, "damaged", pieces[0], b"otherwise")
    answers.add_response("abort_multipart_upload", {}, {**AT, "UploadId": "damaged"})
    parts(answers, "good", pieces[0])
    sent(answers, "good", 2, pieces[1])
    sent(answers, "good", 3, pieces[2])
    parts(answers, "good", *pieces)
    done = {"Parts": [{"PartNumber": n, "ETag": f'"{md5(p)}"'} for n, p in enumerate(pieces, 1)]}
    answers.add_response("complete_multipart_upload", {}, {**AT, "UploadId": "good", "MultipartUpload": done})
    whole(answers, data)
    assert store.upload(source, "images/a", hashlib.sha256(data).hexdigest()) == 5 * MIB + 100


def test_parts_that_the_service_lists_otherwise_are_not_completed(
    store: S3Store, answers: Stubber, tmp_path: Path
) -> None:
    source, pieces, data = three_parts(tmp_path)
    answers.add_client_error("head_object", "404", http_status_code=404)
    unfinished(answers, ("good", 2))
    parts(answers, "good", *pieces[:2])
    sent(answers, "good", 3, pieces[2])
    parts(answers, "good", *pieces[:2], b"otherwise")
    with pytest.raises(CorruptArtifact, match="lists other parts"):
        store.upload(source, "images/a", hashlib.sha256(data).hexdigest())


def test_upload_that_somebody_else_completed(store: S3Store, answers: Stubber, tmp_path: Path) -> None:
    source, pieces, data = three_parts(tmp_path)
    answers.add_client_error("head_object", "404", http_status_code=404)
    unfinished(answers, ("good", 2))
    parts(answers, "good", *pieces[:2])
    answers.add_client_error("upload_part", "NoSuchUpload", http_status_code=404)
    answers.add_response("head_object", {"ContentLength": len(data)}, AT)
    whole(answers, data)
    assert store.upload(source, "images/a", hashlib.sha256(data).hexdigest()) == 0


def test_upload_that_another_ends_while_it_is_looked_at(store: S3Store, answers: Stubber, tmp_path: Path) -> None:
    """As when the other one has found it damaged: this one begins anew."""
    source, pieces, data = three_parts(tmp_path)
    answers.add_client_error("head_object", "404", http_status_code=404)
    unfinished(answers, ("good", 2))
    answers.add_client_error("list_parts", "NoSuchUpload", http_status_code=404)
    answers.add_client_error("head_object", "404", http_status_code=404)
    unfinished(answers, ("new", 3))
    parts(answers, "new", *pieces)
    parts(answers, "new", *pieces)
    answers.add_response("complete_multipart_upload", {}, {**AT, "UploadId": "new", "MultipartUpload": ANY})
    whole(answers, data)
    assert store.upload(source, "images/a", hashlib.sha256(data).hexdigest()) == 0


def test_object_that_is_damaged_is_removed(store: S3Store, answers: Stubber, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"good")
    answers.add_client_error("head_object", "404", http_status_code=404)
    answers.add_response("put_object", {})
    whole(answers, b"goof")
    answers.add_response("delete_object", {}, AT)
    with pytest.raises(CorruptArtifact, match="arrived damaged in s3://bucket/pre"):
        store.upload(tmp_path / "source", "images/a", hashlib.sha256(b"good").hexdigest())


def test_object_that_never_ends_is_not_read_on(store: S3Store, answers: Stubber, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"good")
    answers.add_client_error("head_object", "404", http_status_code=404)
    answers.add_response("put_object", {})
    whole(answers, b"good" * 100)
    with pytest.raises(StoreError, match="images/a is larger than 4 B"):
        store.upload(tmp_path / "source", "images/a", hashlib.sha256(b"good").hexdigest())


@pytest.mark.parametrize(
    ("outcomes", "honoured"),
    [
        (["", "PreconditionFailed", "PreconditionFailed", "ConditionalRequestConflict", "PreconditionFailed"], True),
        (["409", "409", "409", "409", "", "412"], True),
        (["", "", "PreconditionFailed", "PreconditionFailed", "PreconditionFailed"], False),
        (["", "", "", "", ""], False),
        (["", "PreconditionFailed", "PreconditionFailed", "PreconditionFailed", ""], False),
        (["409", "409", "409", "409", "409", "412"], False),
    ],
)
def test_service_is_tried_before_the_first_new_file(
    store: S3Store, answers: Stubber, monkeypatch: pytest.MonkeyPatch, outcomes: list[str], honoured: bool
) -> None:
    told = iter(outcomes)
    tried: list[str] = []

    def put_new(path: str, data: bytes) -> str:
        tried.append(path)
        return next(told, "")

    monkeypatch.setattr(store, "_put_new", put_new)
    answers.add_response("delete_object", {})
    if honoured:
        store.create("log/1", b"x")
        store.create("log/2", b"x")
        assert tried[-2:] == ["log/1", "log/2"]
    else:
        with pytest.raises(StoreError, match="does not honour If-None-Match"):
            store.create("log/1", b"x")
        assert "log/1" not in tried
    assert {p.split("-")[0] for p in tried} - {"log/1", "log/2"} == {".incoming/probe"}
    assert len({p for p in tried if p.startswith(".incoming")}) == 1


def test_service_that_refuses_conditions_by_an_error(store: S3Store, answers: Stubber) -> None:
    with Stubber(store._hasty) as hasty:
        for _ in range(5):
            hasty.add_client_error("put_object", "NotImplemented", http_status_code=501)
        answers.add_response("delete_object", {})
        with pytest.raises(StoreError, match="does not honour If-None-Match") as caught:
            store.create("log/1", b"x")
    assert "NotImplemented" in (caught.value.details or "")


def test_service_that_is_out_of_order_is_not_called_unfit(store: S3Store, answers: Stubber) -> None:
    with Stubber(store._hasty) as hasty:
        for _ in range(16):
            hasty.add_client_error("put_object", "InternalError", http_status_code=500)
        for _ in range(4):
            answers.add_response("delete_object", {})
        with pytest.raises(StoreError, match="refused: InternalError"):
            store.create("log/1", b"x")


def test_conflict_is_tried_again(store: S3Store, answers: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    store._creates = True
    monkeypatch.setattr("time.sleep", lambda _: None)
    told: list[Any] = ["ConditionalRequestConflict", ""]
    monkeypatch.setattr(store, "_put_new", lambda path, data: told.pop(0))
    answers.add_client_error("head_object", "404", http_status_code=404)
    store.create("log/1", b"x")
    assert told == []


def test_conflict_with_somebody_who_has_won(store: S3Store, answers: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    store._creates = True
    monkeypatch.setattr(store, "_put_new", lambda path, data: "409")
    answers.add_response("head_object", {"ContentLength": 1})
    with pytest.raises(Taken):
        store.create("log/1", b"x")


def test_endpoint_that_is_no_url() -> None:
    with pytest.raises(ConfigError, match="s3://bucket"):
        S3Store("bucket", "", Options(endpoint="storage.example.net", region="x")).size("a")


def test_objects_that_are_larger_than_they_may_be(
    store: S3Store, answers: Stubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever length the service has said."""
    for _ in range(2):
        whole(answers, b"x" * 100)
    with pytest.raises(StoreError, match="images/a is larger than 99 B"):
        store.download("images/a", tmp_path / "file", 99)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("foundry.publish.stores.LARGEST", 99)
    with pytest.raises(StoreError, match="images/a is larger than 99 B"):
        store.read("images/a")
