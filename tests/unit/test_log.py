"""What a stage leaves in the record of a run."""

from __future__ import annotations

import time

import pytest

from foundry import log


def test_a_stage_is_timed_and_over_when_its_block_ends() -> None:
    begin = time.monotonic()
    with log.stage("base", "first build") as record:
        assert log.current_stage() == "base"
        with log.stage("verify", "asked for"):
            assert log.current_stage() == "verify"
        assert log.current_stage() == "base"
    assert log.current_stage() == ""
    assert 0 <= record.seconds <= time.monotonic() - begin
    assert (record.outcome, record.reason) == ("built", "first build")


def test_one_that_fails_says_so() -> None:
    with pytest.raises(ValueError, match="no"), log.stage("base", "first build") as record:
        raise ValueError("no")
    assert record.outcome == "failed"
    assert log.current_stage() == ""
