"""The hospital's patients: what is recorded is what their training does."""

import math

import pytest
import torch

from course_utils.training.lab import hospital
from course_utils.training.parts.diagnosis import DIAGNOSES, diagnose


def test_every_illness_has_patients_and_every_patient_a_known_one() -> None:
    assert set(hospital.recorded()) == set(hospital.CASES)
    assert {hospital.diagnosis_of(case) for case in hospital.CASES} == set(DIAGNOSES)
    for runs in hospital.recorded().values():
        assert len(runs) == len(hospital.SEEDS)
        for metrics in runs:
            assert len(metrics["loss"]) == len(metrics["grad_norm"]) == hospital.STEPS
            assert len(metrics["val_loss"]) == len(metrics["eval_step"])


@pytest.mark.parametrize("case", hospital.CASES)
def test_the_reference_diagnoses_every_recorded_patient(case: str) -> None:
    found = [diagnose(metrics) for metrics in hospital.recorded()[case]]
    assert found == [hospital.diagnosis_of(case)] * len(hospital.SEEDS)


@pytest.mark.parametrize("case", ["no_warmup", "fp16_overflow"])
def test_training_a_patient_again_gives_its_record(case: str) -> None:
    """Closely at first; other processors round differently, and training makes that larger."""
    metrics, record = hospital.train(hospital.CASES[case], seed=0), hospital.recorded()[case][0]
    assert metrics["loss"][:8] == pytest.approx(record["loss"][:8], rel=0.01)
    assert metrics["grad_norm"][:5] == pytest.approx(record["grad_norm"][:5], rel=0.02)
    assert metrics["lr"] == pytest.approx(record["lr"], rel=1e-3)
    assert metrics["val_loss"][0] == pytest.approx(record["val_loss"][0], rel=1e-3)
    assert diagnose(metrics) == hospital.diagnosis_of(case)


def test_a_patient_nobody_has_seen_is_diagnosed() -> None:
    metrics = hospital.train(hospital.CASES["labels_shifted_twice"], seed=77)
    assert diagnose(metrics) == "labels_shifted_twice"


def test_targets_lie_one_token_ahead_within_their_document() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = hospital.make_rows(8, 1, generator)
    counts = rows.targets != -100
    assert torch.equal(rows.targets[:, :-1][counts[:, :-1]], rows.tokens[:, 1:][counts[:, :-1]])
    ends = torch.arange(hospital.LENGTH - 1, hospital.SEQ, hospital.LENGTH)
    assert not counts[:, ends].any() and counts.sum() == 8 * (hospital.SEQ - len(ends))


def test_what_is_written_is_read_again() -> None:
    metrics = {"loss": [1.23456, math.nan], "lr": [1e-5]}
    again = hospital._read(hospital._write(metrics))
    assert again["loss"][0] == 1.235 and math.isnan(again["loss"][1]) and again["lr"] == [1e-5]


def test_an_unknown_case_names_the_known_ones() -> None:
    with pytest.raises(SystemExit, match="no case 'flu'; there are healthy, "):
        hospital.main(["flu"])
