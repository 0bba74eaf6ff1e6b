"""Systems that i-PI makes of a template, as i-PI makes them."""

from __future__ import annotations

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.ipi.input import parse_input

TEMPLATE = """<simulation><output prefix="run"><properties>[step, conserved]</properties></output>
<ffsocket mode="unix" name="d"><address>a</address></ffsocket>
<system_template><template>
  <system prefix="NAME"><initialize nbeads="BEADS"><file mode="xyz">FILE</file></initialize>
  <forces><force forcefield="d"/></forces><motion mode="dynamics"/></system>
</template><labels>[ NAME, BEADS, FILE ]</labels>
<instance>[ cold, 2, one.xyz ]</instance><instance>[ hot, 3, two.xyz ]</instance>
</system_template></simulation>"""


@pytest.fixture
def path(tmp_path):
    for name in ("one.xyz", "two.xyz"):
        (tmp_path / name).write_text("1\n\nH 0 0 0\n")
    return tmp_path / "in.xml"


def test_it_is_like_the_systems_it_makes(path):
    known = parse_input(path, TEMPLATE)
    assert known.outputs("out") == ("cold_run.out", "hot_run.out")
    assert known.structures_per_step == 5
    assert known.conserved
    assert str(path.with_name("two.xyz")) in known.text
    assert "system_template" not in known.text
    again = parse_input(path, known.text)
    assert again.system_prefixes == ("cold", "hot")


def test_the_longer_of_two_labels_is_replaced_first(path):
    text = TEMPLATE.replace("NAME", "N").replace("BEADS", "NB")
    assert parse_input(path, text).structures_per_step == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[ cold, 2, one.xyz ]", "[ cold, 2 ]", "has 3 labels and an instance of 2 values"),
        ("<system prefix", "<sys prefix", "not readable as XML"),
        ("one.xyz", "gone.xyz", "the file 'gone.xyz' is not there"),
        ("two.xyz", "<a>", "not readable as XML"),
    ],
)
def test_templates_that_are_wrong(path, old, new, message):
    with pytest.raises(InputError, match=message):
        parse_input(path, TEMPLATE.replace(old, new))


def test_without_a_template(path):
    text = "<simulation><system_template/></simulation>"
    with pytest.raises(InputError, match="has no <template>"):
        parse_input(path, text)
