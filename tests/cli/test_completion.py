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


COMPLETES = {
    "bash": """
        eval "$(deltaserver completion bash)"
        COMP_WORDS=(deltaserver {words}); COMP_CWORD={n}
        _deltaserver_completion deltaserver
        echo "${{COMPREPLY[@]}}"
    """,
    # compadd works in zsh's line editor only: here it tells what it is given.
    "zsh": """
        autoload -Uz compinit; compinit -D -u
        eval "$(deltaserver completion zsh)"
        [[ ${{_comps[deltaserver]}} == _deltaserver_completion ]] || exit 1
        _describe() {{ print -r -- ${{(P)3%%:*}} }}
        compadd() {{ print -r -- $completions }}
        words=(deltaserver {words}); CURRENT=$(({n} + 1))
        _deltaserver_completion
    """,
    "fish": """
        mkdir -p $HOME/.config/fish/completions
        deltaserver completion fish > $HOME/.config/fish/completions/deltaserver.fish
        complete -C "deltaserver {words}" | string split -f 1 \\t
    """,
}


@pytest.mark.parametrize(
    ("words", "expected"), [("simu", "simulate"), ("simulate --kind um", "umbrella")]
)
@pytest.mark.parametrize("shell", COMPLETES)
def test_a_shell_completes_with_it(tmp_path, shell, words, expected):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell}")
    program = tmp_path / "deltaserver"  # of this very interpreter, whatever else is installed
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deltaserver "$@"\n')
    program.chmod(0o755)
    place = {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
    }
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": []}[shell]
    asked = COMPLETES[shell].format(words=words, n=len(words.split()))
    done = subprocess.run(
        [found, *options, "-c", asked],
        capture_output=True,
        text=True,
        env=os.environ | place,
        check=False,
    )
    assert done.stdout.split() == [expected], done.stderr
