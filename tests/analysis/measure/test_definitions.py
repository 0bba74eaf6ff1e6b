from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from deltaserver.analysis.measure.definitions import default_definitions, read_definitions
from deltaserver.errors import DataError
from deltaserver.model.manifest import read_manifest

FRAGMENTS = {"guest": (0, 1, 2), "host": (3, 4, 5, 6, 7)}
ROOT = Path(__file__).parents[3]


def read(tmp_path, text):
    path = tmp_path / "analysis.yaml"
    text = dedent(text)
    path.write_text(text if "format" in text else f"format: deltaserver-analysis/1\n{text}")
    return read_definitions(path, FRAGMENTS)


def test_any_complex_has_a_distance_and_the_smaller_ones_turn():
    found = default_definitions(FRAGMENTS)
    assert [v.name for v in found.variables] == ["R_CM"]
    assert found.surfaces[0].variables == ("R_CM",)
    assert (found.rotations[0].guest, found.rotations[0].host) == ("guest", "host")
    assert found.pairs[0].name == "guest-host"
    three = default_definitions(FRAGMENTS | {"ion": (8,)})
    assert [v.name for v in three.variables] == [
        "R_CM_guest_host", "R_CM_guest_ion", "R_CM_host_ion",
    ]  # fmt: skip
    assert [r.guest for r in three.rotations] == ["guest"]
    alone = default_definitions({"host": (0, 1)})
    for what in (alone.variables, alone.surfaces, alone.rotations, alone.pairs):
        assert what == ()


def test_everything_can_be_said(tmp_path):
    found = read(
        tmp_path,
        """
        fragments: {lid: "3-4"}
        variables:
          - {name: w, kind: dihedral, groups: [0, 1, "2", guest]}
          - {name: h, kind: plane_distance, groups: [guest, "3-7"], centre: geometry, symbol: "$h$"}
          - {name: d, kind: distance, groups: [lid, guest]}
        fes:
          - {variables: [w, h], bins: [10, 20], range: [null, [1, 4.5]], jacobian: remove}
          - {variables: [d], bins: 30, range: [2, 9]}
        msad: [{guest: guest, host: null}, {guest: lid, host: host}]
        rdf: [{groups: [guest, lid], max: 8, bins: 80, name: x}]
        """,
    )
    assert found.variable("w").groups == ((0,), (1,), (2,), (0, 1, 2))
    assert found.variable("d").groups == ((3, 4), (0, 1, 2))
    first, second = found.surfaces
    assert (first.bins, first.ranges, first.jacobian) == ((10, 20), (None, (1.0, 4.5)), "remove")
    assert (second.bins, second.ranges, second.name) == ((30,), ((2.0, 9.0),), "fes_d")
    assert found.rotations[0].host_atoms == ()
    assert found.pairs[0].bins == 80
    with pytest.raises(DataError, match="no variable 'q'; there are: w, h, d"):
        found.variable("q")


def test_what_is_not_mentioned_is_as_without_a_file(tmp_path):
    assert read(tmp_path, "") == default_definitions(FRAGMENTS)


DISTANCE = "{name: a, kind: distance, groups: [0, 1]}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: other/1", "format is 'other/1'; this version reads"),
        ("format: [", "not readable as YAML"),
        ("- format", "the file is a list; expected a mapping"),
        ("x: 1", "unknown key 'x'"),
        ("variables: 3", "variables is 3; expected a list"),
        ("variables: [{name: a, kind: distance}]", r"variables\[0\] lacks groups"),
        ("variables: [{name: 'a b', kind: distance, groups: [0, 1]}]", "expected letters"),
        ("variables: [{name: a, kind: metre, groups: [0, 1]}]", "kind is 'metre'; expected one of"),
        ("variables: [{name: a, kind: angle, groups: [0, 1]}]", "2 groups; a angle has 3"),
        ("variables: [{name: a, kind: distance, groups: [0, b]}]", "neither atoms such as '0-4,9'"),
        ("variables: [{name: a, kind: distance, groups: [0, '1,1']}]", "stands twice"),
        ("variables: [{name: a, kind: distance, groups: [0, [1]]}]", "is no group"),
        ("variables: [{name: a, kind: distance, groups: [0, -1]}]", "neither atoms"),
        ("variables: [{name: a, kind: plane_angle, groups: [guest, '0-1']}]", "a plane of 2 atoms"),
        (f"variables: [{DISTANCE}, {DISTANCE}]", "two variables have the"),
        ("variables: [&v {name: a, kind: distance, groups: [0, 1]}, *v]", "an alias"),
        ("fes: [{variables: [R_CM, q]}]", "no variable 'q'; there are: R_CM"),
        ("fes: [{variables: [R_CM, R_CM]}]", "expected one or two"),
        ("fes: [{variables: [R_CM], bins: 1}]", "bins is 1; expected a whole number from 2"),
        ("fes: [{variables: [R_CM], bins: [3, 4]}]", "expected one number a variable"),
        ("fes: [{variables: [R_CM], range: [[4, 2]]}]", "expected .low, high."),
        ("fes: [{variables: [R_CM], range: 4}]", "expected .low, high. a variable"),
        ("fes: [{variables: [R_CM], jacobian: maybe}]", "jacobian is 'maybe'"),
        ("msad: [{guest: nobody}]", "neither atoms"),
        ("rdf: [{groups: [guest]}]", "1 groups; expected two"),
        ("rdf: [{groups: [2, '2']}]", "both groups are atom 2; expected two atoms"),
        ("rdf: [{groups: [guest, host], max: -1}]", "max is -1; expected a distance"),
    ],
)
def test_every_fault_is_one_line_that_names_the_file(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "analysis.yaml"))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_definitions(tmp_path / "none.yaml", FRAGMENTS)


def test_the_shipped_bowls_are_the_corannulenes_of_the_bonded_graph():
    """The only five-membered rings of C60H28 and the six-membered rings around each."""
    networkx = pytest.importorskip("networkx")
    from ase.io import read as ase_read
    from ase.neighborlist import natural_cutoffs, neighbor_list

    directory = ROOT / "models" / "c60"
    fragments = {f.name: f.atoms for f in read_manifest(directory).fragments}
    found = read_definitions(directory / "analysis.yaml", fragments)
    atoms = ase_read(ROOT / "ipi_inputs" / "c60_buckycatcher.xyz")
    pairs = zip(*neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15)), strict=True)
    graph = networkx.Graph((int(i), int(j)) for i, j in pairs)
    rings = networkx.minimum_cycle_basis(graph.subgraph(fragments["buckycatcher"]))
    bowls = set()
    for five in (set(ring) for ring in rings if len(ring) == 5):
        around = [set(r) for r in rings if len(r) == 6 and len(five & set(r)) == 2]
        assert len(around) == 5
        bowls.add(frozenset(five.union(*around)))
    assert bowls == {frozenset(group) for group in found.variable("R_p").groups}
    assert all(len(bowl) == 20 for bowl in bowls)
    assert found.variable("R_p").centre == "geometry"
    opening = found.variable("R_p").values(atoms.positions[None], atoms.get_masses())
    assert 9.5 < opening[0] < 11.5
    assert yaml.safe_load((directory / "analysis.yaml").read_text())["msad"]
