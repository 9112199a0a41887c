"""The numbers of a run: metrics.jsonl, and the real Weights & Biases client, offline."""

import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_training import in_processes, trace, train

from course_utils.training.storage.run_folder import MetricsFile


def test_going_back_cuts_the_later_lines(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        file.append({"step": step, "loss": 1 / 3})
    with file.path.open("a") as torn:
        torn.write('{"step": 5, "lo')
    assert [line["step"] for line in file.read()] == [1, 2, 3, 4]
    file.cut_back(2)
    assert (
        file.path.read_text() == f'{{"step": 1, "loss": {1 / 3}}}\n{{"step": 2, "loss": {1 / 3}}}\n'
    )
    assert file.last() == {"step": 2, "loss": 1 / 3}
    file.cut_back(0)
    assert file.path.read_text() == ""
    assert file.last() == {}


def test_every_line_is_json(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append({"step": 1, "loss": 2.0, "grad_norm": float("inf")})  # an fp16 step that overflowed

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(file.path.read_text(), parse_constant=refuse)["grad_norm"] is None


def logged(wandb_file: Path) -> list[dict[str, Any]]:
    """The history in a .wandb file: protobuf records in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, block = wandb_file.read_bytes(), 32768
    position, message, rows = 7, b"", []  # after the file's own header
    while position + 7 <= len(content):
        if block - position % block < 7:  # a record's header does not straddle blocks
            position += block - position % block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record.FromString(message)
            message = b""
            if record.WhichOneof("record_type") == "history":
                rows.append(
                    {
                        item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return rows


def track_without_network(runs: Path) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"reached for the network: {address}")
        connect(self, address)

    connect, socket.socket.connect = socket.socket.connect, refuse  # type: ignore[method-assign]
    train(runs, tracking="wandb", steps=4, eval_every=2, recipe={"model": {"width": 8}})
    train(runs, tracking="wandb", steps=6, eval_every=2, recipe={"model": {"width": 8}})


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    ended = in_processes(track_without_network, tmp_path, log=tmp_path / "log")
    assert ended.code == 0, ended.output
    files = sorted((tmp_path / "toy" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({path.name for path in files}) == 1, "a resumed run is the same run"
    rows = [row for path in files for row in logged(path)]
    lines = trace(tmp_path / "toy")
    assert [row["_step"] for row in rows] == [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows] == [line["loss"] for line in lines]
    assert rows[1]["val_loss"] == lines[1]["val_loss"]


def train_without_tracking(runs: Path) -> None:
    train(runs)
    assert "wandb" not in sys.modules


def test_wandb_is_imported_only_when_wanted(tmp_path: Path) -> None:
    assert in_processes(train_without_tracking, tmp_path, log=tmp_path / "log").code == 0
