"""The script that ``deltaserver completion`` prints makes a real shell complete."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deltaserver.cli.app import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "_DELTASERVER_COMPLETE" in capsys.readouterr().out


def test_bash_completes_with_it(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    program = tmp_path / "deltaserver"  # of this very interpreter, whatever else is installed
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deltaserver "$@"\n')
    program.chmod(0o755)
    asked = """
        eval "$(deltaserver completion bash)"
        COMP_WORDS=(deltaserver simu); COMP_CWORD=1
        _deltaserver_completion deltaserver
        echo "${COMPREPLY[@]}"
    """
    place = {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [bash, "-c", asked],
        capture_output=True,
        text=True,
        env=os.environ | place,
        check=False,
    )
    assert done.stdout.split() == ["simulate"], done.stderr
