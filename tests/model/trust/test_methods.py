import pytest

from deltaserver.model.trust.methods import differ


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("GFN2-xTB", "GFN2-xTB tblite", False),
        ("GFN2-xTB tblite", "GFN2-xTB (xtb-python 22.1) Langevin 1fs", False),
        ("tblite:GFN2-xTB", "gfn2-xtb", False),
        ("not stated", "GFN2-xTB", False),
        ("of frames.xyz", "GFN2-xTB", False),
        ("GFN2-xTB", "GFN1-xTB", True),
        ("PBE-D4/def2-SVP", "PBE-D4/def2-TZVP", True),
        ("MP2 cc-pVDZ", "MP2 aug-cc-pVTZ", True),
    ],
)
def test_names_of_one_method_are_told_from_those_of_two(one, other, expected):
    assert differ(one, other) is differ(other, one) is expected
