"""``model.yaml``: everything that may be wrong with one is told in one line that names it."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deltaserver.errors import ManifestError
from deltaserver.model.manifest import format_atoms, parse_atoms, read_manifest
from tests.builders import manifest, write_directory


@pytest.fixture
def directory(tmp_path):
    return write_directory(tmp_path / "model")


def refusal(directory, content):
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (directory / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read_manifest(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{directory / 'model.yaml'}: ")
    return message


def changed(*path, to):
    """The valid manifest with one entry changed."""
    data = manifest()
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = to
    return data


ION = {"name": "sodium", "atoms": "7", "species": ["Na"], "energy": -4.25, "energy_unit": "eV"}


def with_ion(**changes):
    data = manifest()
    ion = {k: v for k, v in (ION | changes).items() if v is not ...}
    data["fragments"].append(ion)
    return data


# -- what is right ----------------------------------------------------------------------------


def test_every_field(directory):
    found = read_manifest(directory)
    assert (found.name, found.reference) == ("water-ammonia", "random numbers")
    assert [f.name for f in found.fragments] == ["water", "ammonia"]
    assert [f.atoms for f in found.fragments] == [(5, 1, 3), (0, 6, 2, 4)]
    assert [f.model for f in found.fragments] == [
        directory / "water.npz",
        directory / "ammonia.npz",
    ]
    assert (found.binding, found.full) == (directory / "binding.npz", directory / "full.npz")
    assert (found.length_unit, found.energy_unit) == (None, None)
    assert found.n_atoms == 7
    assert read_manifest(directory / "model.yaml") == found


def test_optional_entries(directory):
    data = manifest() | {"units": {"length": "bohr", "energy": "Hartree"}}
    del data["full"], data["reference"]
    write_directory(directory, data)
    found = read_manifest(directory)
    assert (found.length_unit, found.energy_unit) == ("bohr", "Hartree")
    assert (found.full, found.reference) == (None, "not stated")


@pytest.mark.parametrize(
    ("changes", "energy_ev"),
    [
        ({}, -4.25),
        ({"species": "Na"}, -4.25),
        ({"atoms": 7}, -4.25),
        ({"energy": 2}, 2.0),
        ({"energy_unit": "Hartree"}, -4.25 * 27.211386245988),
        ({"energy_unit": "kcal/mol"}, -4.25 * 0.04336410424),
    ],
)
def test_a_lone_ion(directory, changes, energy_ev):
    write_directory(directory, with_ion(**changes))
    ion = read_manifest(directory).fragments[2]
    assert ion.atoms == (7,)
    assert ion.model.number == 11
    assert ion.model.energy_ev == pytest.approx(energy_ev, rel=1e-9)


def test_a_lone_ion_takes_the_manifest_s_unit(directory):
    write_directory(directory, with_ion(energy_unit=...) | {"units": {"energy": "kJ/mol"}})
    ion = read_manifest(directory).fragments[2]
    assert ion.model.energy_ev == pytest.approx(-4.25 * 0.010364269656, rel=1e-9)


def test_a_name_of_several_lines_becomes_one(directory):
    write_directory(directory, changed("name", to="two\nlines"))
    assert read_manifest(directory).name == "two lines"


@pytest.mark.parametrize(
    ("text", "atoms"),
    [
        ("0-4,9", (0, 1, 2, 3, 4, 9)),
        ("9,0-4", (9, 0, 1, 2, 3, 4)),
        (" 3 , 1 - 2 ", (3, 1, 2)),
        ("7-7", (7,)),
        (12, (12,)),
        ("0-59", tuple(range(60))),
    ],
)
def test_atoms(text, atoms):
    assert parse_atoms(text) == atoms


@given(st.lists(st.integers(0, 300), min_size=1, unique=True))
def test_formatting_atoms_is_the_inverse_of_parsing_them(atoms):
    assert parse_atoms(format_atoms(tuple(atoms))) == tuple(atoms)


def test_runs_are_formatted_as_ranges():
    assert format_atoms((0, 1, 2, 3, 4, 9)) == "0-4,9"


# -- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "a", "1-", "-1", "1,,2", "4-0", "0-1-2", "1;2", "0x3", "1.5", "1000001", "0-9999999999"],
)
def test_bad_atom_strings(directory, text):
    assert "fragment 'water': atoms " in refusal(
        directory, changed("fragments", 0, "atoms", to=text)
    )


@pytest.mark.parametrize("value", [None, [0, 1], {"a": 1}, 1.5, True])
def test_atoms_that_are_no_text(directory, value):
    message = refusal(directory, changed("fragments", 0, "atoms", to=value))
    assert "expected text such as '0-4,9'" in message


@pytest.mark.parametrize(
    ("water", "ammonia", "said"),
    [
        ("5,1", "0,6,2,4", "atom 3 in no fragment; expected every atom from 0 to 6"),
        ("5,1,3", "10-12", "atoms 0,2,4,6-9 in no fragment"),
        ("5,1,3,0", "0,6,2,4", "atom 0 is in two fragments, 'water' and 'ammonia'"),
        ("5,1,3,5", "0,6,2,4", "atom 5 stands twice in '5,1,3,5'"),
        ("0-2,1-3", "4-6", "stands twice"),
    ],
)
def test_atoms_missing_or_twice(directory, water, ammonia, said):
    data = changed("fragments", 0, "atoms", to=water)
    data["fragments"][1]["atoms"] = ammonia
    assert said in refusal(directory, data)


@pytest.mark.parametrize("text", ["0-1000000,3", "0-1000000," * 20_000 + "3"])
def test_huge_atom_strings_are_refused_at_once(directory, text):
    began = time.thread_time()
    message = refusal(directory, changed("fragments", 0, "atoms", to=text))
    assert "more than 1000001 atoms" in message
    assert len(message) < 500
    assert time.thread_time() - began < 5.0


def test_finding_the_atom_that_stands_twice_takes_no_quadratic_time(directory):
    began = time.thread_time()
    message = refusal(directory, changed("fragments", 0, "atoms", to="0-500000,500000"))
    assert "atom 500000 stands twice" in message
    assert time.thread_time() - began < 5.0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("colour",), "red", "the manifest has the unknown key 'colour'"),
        (("two\nlines",), 1, r"unknown key 'two\nlines'"),
        ((3,), 1, "unknown key 3"),
        (("fragments", 1, "modell"), "x.npz", "fragments[1] has the unknown key 'modell'"),
        (("units",), {"mass": "u"}, "units has the unknown key 'mass'"),
        (("binding", "units"), "eV", "binding has the unknown key 'units'"),
        (("full", "x"), 1, "full has the unknown key 'x'"),
        (("format",), "deltaserver-model/2", "format is 'deltaserver-model/2'; this version reads"),
        (("format",), None, "format is empty"),
        (("format",), ["a", "b"], "format is a list"),
        (("name",), "", "name is ''; expected text"),
        (("name",), 5, "name is 5; expected text"),
        (("reference",), [], "reference is a list; expected text"),
        (("units",), None, "units is empty; expected a mapping"),
        (("units",), {"length": "furlong"}, "units.length: length unit 'furlong' is not known"),
        (("units",), {"energy": 3}, "units.energy is 3; expected text"),
        (("fragments",), [], "fragments is a list; expected a list of at least one"),
        (("fragments",), {}, "fragments is a mapping"),
        (("fragments",), None, "fragments is empty"),
        (("fragments", 0), "water", "fragments[0] is 'water'; expected a mapping"),
        (("fragments", 0), {"name": "water"}, "fragments[0] lacks atoms"),
        (("fragments", 1, "name"), "water", "two fragments have the name 'water'"),
        (("fragments", 0, "name"), 7, "fragments[0].name is 7"),
        (("fragments", 0, "energy"), 1.0, "fragment 'water' has a model and energy"),
        (("binding",), {}, "binding lacks model"),
        (("binding",), "binding.npz", "binding is 'binding.npz'; expected a mapping of model"),
        (("binding", "model"), 5, "binding: model is 5; expected text"),
    ],
)
def test_wrong_entries_are_named(directory, path, value, said):
    assert said in refusal(directory, changed(*path, to=value))


def test_a_model_without_a_name_has_its_directory_s(directory):
    data = manifest()
    del data["name"]
    (directory / "model.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert read_manifest(directory).name == directory.name


@pytest.mark.parametrize("key", ["format", "fragments", "binding"])
def test_missing_entries_are_named(directory, key):
    data = manifest()
    del data[key]
    message = refusal(directory, data)
    assert key in message
    assert "lacks" in message or "missing" in message


@pytest.mark.parametrize(
    "name",
    ["total", "fragments", "binding", "full", "a b", "a:b", "a,b", "-x", "ä", "a/b", "a\nb"],
)
def test_bad_names(directory, name):
    assert "fragments[0].name is" in refusal(directory, changed("fragments", 0, "name", to=name))


@pytest.mark.parametrize(
    "path",
    [
        "../outside.npz",
        "/etc/passwd",
        "sub/../../outside.npz",
        "link.npz",
        "linked/outside.npz",
    ],
)
@pytest.mark.parametrize("entry", [("fragments", 0), ("binding",), ("full",)])
def test_paths_that_leave_the_directory(directory, path, entry):
    (directory.parent / "outside.npz").write_bytes((directory / "water.npz").read_bytes())
    (directory / "link.npz").symlink_to("../outside.npz")
    (directory / "linked").symlink_to("..")
    message = refusal(directory, changed(*entry, "model", to=path))
    assert f"{path!r} leads out of the model directory" in message


def test_links_inside_the_directory_are_followed(directory):
    (directory / "same.npz").symlink_to("water.npz")
    write_directory(directory, changed("fragments", 0, "model", to="same.npz"))
    assert read_manifest(directory).fragments[0].model == directory / "water.npz"


@pytest.mark.parametrize("name", ["nothing.npz", ".", "sub/water.npz"])
def test_files_that_are_not_there(directory, name):
    message = refusal(directory, changed("binding", "model", to=name))
    assert f"binding: no file {name!r}" in message


@pytest.mark.parametrize("name", ["a\0b.npz", "x" * 300, "loop.npz"])
def test_names_that_no_file_can_have(directory, name):
    (directory / "loop.npz").symlink_to("loop.npz")
    message = refusal(directory, changed("binding", "model", to=name))
    assert "binding: " in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"energy": float("nan")}, "energy is nan; expected a finite number"),
        ({"energy": float("inf")}, "energy is inf"),
        ({"energy": 10**400}, "energy is int; expected a finite number"),
        ({"energy": "much"}, "energy is 'much'; expected a finite number"),
        ({"energy": True}, "energy is True; expected a finite number"),
        ({"energy": ...}, "has no model; expected model: FILE.npz"),
        ({"species": ...}, "has no model"),
        ({"species": ["Xx"]}, "'Xx' is no element symbol"),
        ({"species": ["X"]}, "'X' is no element symbol"),
        ({"species": [["Na"]]}, "a list is no element symbol"),
        ({"species": [11]}, "11 is no element symbol"),
        ({"species": ["Na", "Cl"]}, "only a lone atom can do without a model"),
        ({"species": 11}, "only a lone atom"),
        ({"atoms": "7-8"}, "has 2 atoms and species a list; only a lone atom"),
        ({"energy_unit": ...}, "lacks energy_unit"),
        ({"energy_unit": "furlong"}, "energy unit 'furlong' is not known"),
        ({"energy_unit": 5}, "energy_unit is 5; expected text"),
    ],
)
def test_wrong_ions(directory, changes, said):
    message = refusal(directory, with_ion(**changes))
    assert "fragment 'sodium'" in message
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the manifest is empty"),
        ("- a\n- b\n", "the manifest is a list"),
        ("just text", "the manifest is 'just text'"),
        ("a: [1, 2", "not readable as YAML"),
        ("\tx: 1", "not readable as YAML"),
        ("a: 1\na: 2\n", "key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice"),
        ("? [a]\n: 1", "not readable as YAML"),
        ("[" * 3000, "not readable as YAML"),
        ("a: &x 1\nb: *x\n", "alias"),
        ("a: &x {b: *x}\n", "alias"),
        ("!!python/object/apply:os.getpid []", "not readable as YAML"),
        ('format: !!int ""', "not readable as YAML"),
        ("format: !!bool maybe", "not readable as YAML"),
        ("format: !!timestamp never", "not readable as YAML"),
        ("format: 2020-99-99", "not readable as YAML"),
        ("x" * (1 << 20) + "x", "longer than 1048576 bytes"),
    ],
)
def test_what_is_no_manifest(directory, text, said):
    assert said in refusal(directory, text)


def test_bytes_that_are_no_text(directory):
    (directory / "model.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ManifestError, match="not readable as YAML"):
        read_manifest(directory)


@pytest.mark.parametrize("where", ["format: {}", "{}: 1", "fragments: [{{name: {}}}]"])
def test_a_bomb_of_aliases_does_not_go_off(directory, where):
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]
    text = "\n".join([*levels, where.format("*l11")])
    began = time.thread_time()
    assert "alias" in refusal(directory, text)
    assert time.thread_time() - began < 2.0


def test_many_keys_take_no_quadratic_time(directory):
    began = time.process_time()  # of this process alone: others may be busy
    refusal(directory, "\n".join(f"k{i}: 1" for i in range(20_000)))
    assert time.process_time() - began < 20.0


@pytest.mark.parametrize("path", ["nothing", "x" * 300, "a\0b"])
def test_directories_that_are_not_there(path):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["run.pos_0.xyz", "binding.npz", "input.xml"])
def test_other_files_are_named_as_such(tmp_path, name):
    (tmp_path / name).write_text("3\n\nO 0 0 0\nH 1 0 0\nH 0 1 0\n")
    with pytest.raises(ManifestError, match=r"no model directory, nor its model\.yaml"):
        read_manifest(tmp_path / name)


def test_a_directory_without_a_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"model\.yaml: no such file"):
        read_manifest(tmp_path)
