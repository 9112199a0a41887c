"""Dockerfiles, compose files and cluster scripts, as far as they can be checked without running
them: by the tools' own linters and schemas; and the Slurm script with the real lab."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_utils.base.paths import course_root

ROOT = course_root()
DOCKER, CLOUD = ROOT / "docker", ROOT / "labs" / "cloud"
BIN = Path(sys.executable).parent
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


def checked(*command: str | Path, **options: Any) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path):
    assert checked(BIN / "hadolint", path) == ""


def test_hadolint_would_say_something(tmp_path: Path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM ubuntu\nRUN cd /tmp && sudo apt-get install x\n")
    assert subprocess.run([BIN / "hadolint", bad], capture_output=True).returncode == 1


def test_each_image_is_built_on_the_one_before():
    bases = [re.search(r"^ARG BASE=(\S+)$", path.read_text(), re.M) for path in DOCKERFILES]
    build = (DOCKER / "build.sh").read_text()
    tags = re.findall(r"--file docker/(\S+) .*--tag (\S+)", build)
    assert [file for file, _ in tags] == [path.name for path in DOCKERFILES]
    assert [base[1] for base in bases if base][1:] == [tag for _, tag in tags][:-1]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_nobody_is_root_and_what_is_copied_exists(path: Path):
    text = path.read_text()
    users = re.findall(r"^USER (\S+)", text, re.M)
    assert users == (["${UID}:${GID}"] if path.name.startswith("1-") else [])
    for sources in re.findall(r"^COPY --chown=course:course (.+) \S+$", text, re.M):
        assert all((ROOT / source).exists() for source in sources.split())


def test_the_image_tells_whether_it_is_well_and_has_no_secret():
    text = DOCKERFILES[-1].read_text()
    assert re.search(r"^HEALTHCHECK .*\n +CMD \[", text, re.M)
    assert not re.search(r"(TOKEN|KEY|PASSWORD) *=", text)


SCRIPTS = [DOCKER / "build.sh", DOCKER / "entrypoint.sh", CLOUD / "pretrain.slurm"]


def test_shellcheck_has_nothing_to_say():
    assert checked(BIN / "shellcheck", "--shell=bash", *SCRIPTS) == ""


def test_the_entrypoint_refuses_to_start_without_a_token(tmp_path: Path):
    environment = {
        "PATH": os.environ["PATH"],
        "COURSE_DATA_DIR": str(tmp_path / "data"),
        "COURSE_RUNS_DIR": str(tmp_path / "runs"),
        "COURSE_HOME": str(tmp_path / "home"),
    }
    jupyter = [DOCKER / "entrypoint.sh", "echo", "jupyter", "lab"]
    done = subprocess.run(jupyter, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Set JUPYTER_TOKEN" in done.stderr
    assert checked(*jupyter, env=environment | {"JUPYTER_TOKEN": "x"}) == "jupyter lab\n"
    assert checked(DOCKER / "entrypoint.sh", "echo", "hi", env=environment) == "hi\n"
    assert (tmp_path / "runs").is_dir()
    (tmp_path / "file").touch()
    environment["COURSE_RUNS_DIR"] = str(tmp_path / "file" / "runs")
    done = subprocess.run(jupyter, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "may not write to /shared" in done.stderr


COMPOSE = sorted(DOCKER.glob("compose*.yaml"))


def test_compose_files_keep_to_the_specification():
    checked(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE)


def test_what_compose_publishes_only_this_machine_reaches():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert service["image"] == "course-lab"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "shared:/shared" in service["volumes"]
        assert service["cap_drop"] == ["ALL"]
    for path in COMPOSE:
        content = yaml.safe_load(path.read_text())
        assert set(content.get("services", {})) <= set(compose["services"])
        assert set(content.get("volumes", {})) <= set(compose["volumes"])


def test_every_variable_of_compose_is_in_the_example():
    text = "".join(path.read_text() for path in COMPOSE)
    required = set(re.findall(r"\$\{(\w+):\?", text))
    example = (DOCKER / ".env.example").read_text()
    assert required | {"COURSE_API_KEY"} <= set(re.findall(r"^(\w+)=", example, re.M))
    assert required == {"JUPYTER_TOKEN", "NAS_ADDRESS", "NAS_PATH"}


def test_a_plain_up_needs_the_token_alone():
    """Compose fills in the whole file, also for services whose profile is off."""
    for path in (DOCKER / "compose.yaml", DOCKER / "compose.gpu.yaml"):
        required = re.findall(r"\$\{(\w+):\?", path.read_text())
        assert required == (["JUPYTER_TOKEN"] if path.name == "compose.yaml" else [])


def test_the_skypilot_task_is_one_and_its_commands_are_shell(tmp_path: Path):
    task = yaml.safe_load((CLOUD / "pretrain.sky.yaml").read_text())
    assert set(task) == {"name", "resources", "envs", "workdir", "file_mounts", "setup", "run"}
    assert (
        task["resources"]["use_spot"]
        and 143 in task["resources"]["job_recovery"]["recover_on_exit_codes"]
    )
    assert task["file_mounts"]["/shared"]["mode"] in ("MOUNT", "MOUNT_CACHED")
    assert "--resume" in task["run"]
    assert (ROOT / "labs" / "recipes" / f"{task['envs']['RECIPE']}.toml").is_file()
    script = tmp_path / "run.sh"
    for commands in (task["setup"], "export SKYPILOT_NUM_GPUS_PER_NODE RECIPE\n" + task["run"]):
        script.write_text(commands)
        checked(BIN / "shellcheck", "--shell=bash", "--exclude=SC1091", script)


def test_the_slurm_script_saves_goes_back_into_the_queue_and_finishes(tmp_path: Path):
    """With the real lab; `scontrol` only notes what it is asked for."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    runs = tmp_path / "runs"
    environment = os.environ | {
        "PATH": f"{tools}:{BIN}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "7",
        "COURSE_RUNS_DIR": str(runs),
        "COURSE_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RECIPE": "pretrain-smoke",
        "LAUNCH": "labs/accelerate/cpu.yaml",
    }
    command = [CLOUD / "pretrain.slurm", "--steps", "300", "--evaluations", "1"]
    asked, metrics = tmp_path / "asked", runs / "pretrain-smoke" / "metrics.jsonl"
    with (tmp_path / "log").open("w") as log:
        script = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while not (metrics.is_file() and metrics.read_text()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                script.wait(0.2)
            assert script.returncode is None, (tmp_path / "log").read_text()
        script.send_signal(signal.SIGTERM)
        assert script.wait(60) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "terminated (SIGTERM). It is saved in" in said
    assert said.rstrip().endswith("Stopped and saved; back into the queue.")
    assert asked.read_text() == "requeue 7\n"
    assert not (runs / "pretrain-smoke" / "summary.json").exists()

    # From here on a stand-in for the lab: that it goes on to the same losses is tested elsewhere.
    (tools / "accelerate").write_text("#!/bin/sh\nexit 5\n")
    (tools / "accelerate").chmod(0o755)
    environment["SLURM_SUBMIT_DIR"] = str(tmp_path)  # no .venv, which would come first
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 5 and "exit code 5" in failed.stderr
    done = f"#!/bin/sh\necho $@ > {tmp_path}/given; touch {runs}/pretrain-smoke/summary.json\n"
    (tools / "accelerate").write_text(done)
    assert "Finished:" in checked(*command, env=environment)
    given = (tmp_path / "given").read_text()
    assert "--resume --steps 300" in given and "cpu.yaml labs/pretrain.py" in given
    assert asked.read_text() == "requeue 7\n"
