"""The entry point of the image, run as it is; Dockerfile, .dockerignore and hooks held against the rest."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()


def entrypoint(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [str(ROOT / "docker/entrypoint"), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_first_word_names_a_program(tmp_path: Path) -> None:
    done = entrypoint("train", "recipe=no_such_recipe", cwd=tmp_path)
    assert done.returncode != 0
    assert "no recipe 'no_such_recipe'" in done.stderr


def test_no_word_lists_the_commands(tmp_path: Path) -> None:
    done = entrypoint(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(train|predict|export)\b", done.stdout, flags=re.MULTILINE) == ["train", "predict", "export"]


def test_arguments_and_working_directory_pass_unchanged(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd())"
    done = entrypoint("python", "-c", code, "data.root=/my data", "a=*", cwd=tmp_path)
    assert done.stdout == f"{['data.root=/my data', 'a=*']} {tmp_path}\n"


def test_unknown_word_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = entrypoint("trian", cwd=tmp_path)
    assert done.returncode == 78
    assert re.search(r"no command 'trian'; did you mean 'train'", done.stderr)


def test_dockerfile_copies_what_exists_and_runs_as_a_user() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE):
        assert [name for name in sources.split() if not (ROOT / name).exists()] == []
    steps = re.findall(r"^(USER|ENTRYPOINT) (.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert steps == [("USER", "detkit"), ("ENTRYPOINT", '["/app/docker/entrypoint"]')]
    assert os.access(ROOT / "docker/entrypoint", os.X_OK)


def test_context_leaves_out_what_git_leaves_out() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text().split()}
    assert {".git", ".venv", "runs", "wandb", ".detkit", "build"} <= ignored


def test_hook_and_tested_ruff_are_one_version() -> None:
    [revision] = re.findall(r"ruff-pre-commit\n +rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert f"\nruff=={revision}\n" in (ROOT / "constraints.txt").read_text()
