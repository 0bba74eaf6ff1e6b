import pytest

from deltaserver.textio.strict_yaml import BAD_YAML, MAX_YAML_BYTES, dump_yaml, load_yaml


def test_plain_data():
    assert load_yaml("a: [1, 2.5, x]\nb: {c: true}\n") == {"a": [1, 2.5, "x"], "b": {"c": True}}


def test_a_billion_laughs():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for k in range(9):
        last, name = chr(97 + k), chr(98 + k)
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]")
    with pytest.raises(BAD_YAML, match="alias"):
        load_yaml("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [true]", "!!python/name:os.system", "a: 1\na: 2\n",
        "{[1]: 2}", "a: !!bool maybe", "a: !!int x", "[" * 5000, "a: b: c", "\x00", "a: !x y",
        " " * (MAX_YAML_BYTES + 1),
    ],
)  # fmt: skip
def test_what_is_refused(text):
    with pytest.raises(BAD_YAML):
        load_yaml(text)


def test_what_is_written_can_be_read():
    shared = ["H", "O"]
    data = {"b": shared, "a": shared, "å": {"x": shared}}
    text = dump_yaml(data)
    assert load_yaml(text) == data
    assert list(load_yaml(text)) == ["b", "a", "å"]
    assert "&" not in text
