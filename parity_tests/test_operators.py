"""Which operators graphs may hold, and which numbers: one table for both languages, held to MXNet's registry."""

import ctypes
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.graph import parse_graph
from vqvae_gluon.artifacts.operators import TABLE, check_attributes, table, trusting
from vqvae_gluon.artifacts.proof import describe_operator
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import InputError

DIGIT = PRETRAINED / "digits" / "00.png"
HERE = Path("x")
# Declared as whole numbers, but a file has words for them.
WORDS = {"dtype"}


def registry() -> dict[str, list[tuple[str, str]]]:
    """Every name of MXNet's registry, and the names and declared types of what it takes."""
    library, check = mx.base._LIB, mx.base.check_call
    size, names = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    check(library.MXListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    return {name: list(describe_operator(name).items()) for name in [names[i].decode() for i in range(size.value)]}


@pytest.fixture(scope="module")
def operators() -> dict[str, list[tuple[str, str]]]:
    return {name: takes for name, takes in registry().items() if "_vqvae_" not in name}  # Those are this project's.


def test_every_operator_of_mxnet_is_in_or_out_with_a_reason(operators):
    known = table()
    lists = [known.bundles, known.others, set(known.refused)]
    assert set(operators) == set.union(*map(set, lists))
    assert sum(map(len, lists)) == len(operators), "an operator is in two lists"
    assert all(reason.startswith("it ") for reason in known.refused.values())


def test_what_takes_a_pointer_a_function_or_a_file_is_out(operators):
    pointers = {name for name, takes in operators.items() if any(kind.startswith("ptr") for _, kind in takes)}
    assert {"_Native", "_NDArray"} <= pointers
    assert pointers <= set(table().refused)
    named = re.compile(
        "custom|native|cachedop|imread|imdecode|tvm|tensorrt|backward|_update|opencv|cvim", re.IGNORECASE
    )
    assert {name for name in operators if named.search(name)} <= set(table().refused)


def test_every_number_of_an_operator_that_is_in_has_bounds(operators):
    known = table()
    numbers = re.compile(r"int|long|Shape|tuple of <(long|Shape)")
    for name in known.bundles | known.others:
        for attribute, kind in operators[name]:
            if numbers.match(kind) and attribute not in WORDS:
                assert attribute in known.numbers, f"{attribute} of {name}: {kind}"


def signed(tmp_path, change) -> str:
    """A bundle whose encoder was changed, and whose manifest says that this is right."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for path in PRETRAINED.glob("*coder-*"):
        (bundle / path.name).write_bytes(path.read_bytes())
    symbol = bundle / "encoder-symbol.json"
    document = json.loads(symbol.read_text())
    change(document["nodes"])
    symbol.write_text(json.dumps(document, ensure_ascii=False))
    manifest = json.loads((PRETRAINED / "manifest.json").read_text())
    manifest["files"][symbol.name]["sha256"] = hashlib.sha256(symbol.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return str(bundle)


def activation(nodes) -> dict:
    return next(node for node in nodes if node["op"] == "Activation")


def both(bundle: str, tmp_path) -> list[tuple[int, str]]:
    """Status and message of both programs."""
    cpp = run_reconstruct("--bundle", bundle, "--output", tmp_path / "cpp", DIGIT)
    python = run_cli_here("reconstruct", bundle, DIGIT, "--output", tmp_path / "python")
    return [(run.returncode, run.stderr) for run in (cpp, python)]


def test_a_bundle_that_calls_an_address_is_refused_before_mxnet_reads_it(tmp_path, monkeypatch):
    def change(nodes):
        activation(nodes).update(op="_Native", attrs={"info": "12345", "need_top_grad": "False"})

    monkeypatch.setattr(mx.sym, "load_json", lambda *_: pytest.fail("MXNet was given the graph"))
    for status, message in both(signed(tmp_path, change), tmp_path):
        assert status == 3
        assert "the operator _Native is refused: it calls what lies at an address in the file" in message
        assert len(message.splitlines()) == 1


def graph_of(operator: str, attributes: dict, subgraphs=()) -> bytes:
    """A graph of one node of this operator."""
    variable = {"op": "null", "name": "data", "inputs": []}
    node = {"op": operator, "name": "node", "attrs": attributes, "inputs": [[0, 0, 0]]}
    node.update({"subgraphs": list(subgraphs)} if subgraphs else {})
    return json.dumps({"nodes": [variable, node], "arg_nodes": [0], "heads": [[1, 0, 0]]}).encode()


def test_no_forbidden_operator_is_read_and_no_other_is_refused():
    """Bundles and plain exports, as Python reads them; cpp_bindings/tests/operators_test.cc asks C++."""
    known = table()
    for operator in known.refused:
        for of_bundle in (False, True):
            with pytest.raises(InputError, match=re.escape(f"node: the operator {operator} is refused: it ")):
                parse_graph(graph_of(operator, {}), HERE, of_bundle)
    for operator in known.others:
        parse_graph(graph_of(operator, {}), HERE)
        with pytest.raises(InputError, match="it is none of those of bundles"):
            parse_graph(graph_of(operator, {}), HERE, of_bundle=True)
    for operator in known.bundles:
        parse_graph(graph_of(operator, {}), HERE, of_bundle=True)


def test_subgraphs_are_read_too():
    inner = json.loads(graph_of("_Native", {"info": "1"}))
    with pytest.raises(InputError, match="_Native is refused"):
        parse_graph(graph_of("_foreach", {}, [inner]), HERE)
    inner["nodes"][1].update(op="tanh", inputs=[[7, 0, 0]])
    with pytest.raises(InputError, match="a reference to node 7"):
        parse_graph(graph_of("_foreach", {}, [inner]), HERE)


def test_subgraphs_are_proved_too(tmp_path, monkeypatch):
    """A node with a subgraph is not one that nobody counts, and no other operators have any."""
    monkeypatch.chdir(tmp_path)
    inner = json.loads(graph_of("SliceChannel", {"num_outputs": "60000"}))
    with pytest.raises(InputError, match="node: tanh takes no subgraphs"):
        parse_graph(graph_of("tanh", {}, [inner]), HERE)
    attributes = {"num_args": "2", "in_data_locs": "[0]", "in_state_locs": "[]", "remain_locs": "[]"}
    beyond = {**inner, "heads": [[1, 60000, 0]]}
    for subgraph, count, words in (
        (inner, "60000", "has more than 100000 outputs"),
        (beyond, "1", "node has no output 60000"),
    ):
        attributes |= {"num_outputs": count, "num_out_data": count}
        document = json.loads(graph_of("_foreach", attributes, [subgraph]))
        document["attrs"] = {"mxnet_version": ["int", 10901]}
        Path("net-symbol.json").write_text(json.dumps(document))
        mx.nd.save("net-0000.params", {})
        np.save("data.npy", np.ones((3, 2), np.float32))
        files = ("--symbol", "net-symbol.json", "--params", "net-0000.params")
        cpp = run_reconstruct(*files, "--input", "data=data.npy", "--trace", "out")
        python = run_cli_here(
            "parity", "record", *files, "--input", "data:3,2", "--runtime", "gluon", "--output", "out"
        )
        for run in (cpp, python):
            assert (run.returncode, words in run.stderr) == (3, True), run.stderr


@pytest.mark.parametrize("flow", ["foreach", "while_loop", "cond"])
def test_control_flow_runs_in_both_languages(flow, tmp_path):
    """MXNet counts subgraphs among the arguments of a node."""
    data, state = mx.sym.var("data"), mx.sym.var("state")
    if flow == "foreach":
        outputs, states = mx.sym.contrib.foreach(lambda x, s: (x + s, s * 2), data, state)
        symbol = mx.sym.Group([outputs, states])
    elif flow == "while_loop":
        outputs, states = mx.sym.contrib.while_loop(
            lambda x, s: mx.sym.sum(s) < 10, lambda x, s: (x + 1, [x, s * 2]), [data, state], max_iterations=4
        )
        symbol = mx.sym.Group([outputs[0] if isinstance(outputs, list) else outputs, states[1]])
    else:
        symbol = mx.sym.contrib.cond(mx.sym.sum(data) > 1, lambda: data * state, lambda: data + state)
    symbol.save(str(tmp_path / "net-symbol.json"))
    mx.nd.save(str(tmp_path / "net-0000.params"), {})
    shapes = ("data:3,2", "state:2") if flow == "foreach" else ("data:3,2", "state:3,2")
    inputs = [word for shape in shapes for word in ("--input", shape)]
    files = ("--symbol", tmp_path / "net-symbol.json", "--params", tmp_path / "net-0000.params")
    result = run_cli_here("parity", *files, *inputs, "--candidate", "cpp")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("hidden", ["attr", "param"])
def test_an_attribute_has_one_value(hidden):
    """MXNet takes one of them, which must be the one that was looked at."""
    document = json.loads(graph_of("SliceChannel", {"num_outputs": "1"}))
    document["nodes"][1][hidden] = {"num_outputs": "1000000000"}
    with pytest.raises(InputError, match="the attribute num_outputs of node has two values"):
        parse_graph(json.dumps(document), HERE)
    twice = graph_of("SliceChannel", {"num_outputs": "1"}).replace(
        b'"attrs"', b'"attrs": {"num_outputs": "9"}, "attrs"'
    )
    assert json.loads(parse_graph(twice, HERE).text)["nodes"][1]["attrs"] == {"num_outputs": "1"}
    assert b"9" in twice and "9" not in parse_graph(twice, HERE).text


def test_what_is_trusted_is_read():
    with trusting({"Custom", "tanh"}):
        parse_graph(graph_of("Custom", {}), HERE, of_bundle=True)
    with pytest.raises(InputError):
        parse_graph(graph_of("Custom", {}), HERE)
    parse_graph(graph_of("tanh", {}), HERE)


def test_a_user_may_trust_an_operator(tmp_path):
    """An operator outside the list for bundles runs, with a warning."""

    def change(nodes):
        activation(nodes).update(op="_contrib_quadratic", attrs={"a": "0", "b": "1", "c": "0"})

    bundle = signed(tmp_path, change)
    for status, message in both(bundle, tmp_path):
        assert status == 3
        assert "_contrib_quadratic is refused: it is none of those of bundles" in message
    words = ("--allow-operator", "_contrib_quadratic")
    cpp = run_reconstruct("--bundle", bundle, "--output", tmp_path / "cpp", *words, DIGIT)
    python = run_cli_here("reconstruct", bundle, DIGIT, "--output", tmp_path / "python", *words)
    for run in (cpp, python):
        assert run.returncode == 0
        assert "warning: the operator _contrib_quadratic is run" in run.stderr
    assert (tmp_path / "cpp" / "00.png").exists() and (tmp_path / "python" / "00.png").exists()


@pytest.mark.parametrize("name", ["", "null", "Custm"])
def test_a_user_trusts_operators_that_there_are(name, tmp_path):
    words = ("--allow-operator", name)
    cpp = run_reconstruct("--bundle", PRETRAINED, "--output", tmp_path / "out", *words, DIGIT)
    python = run_cli_here("reconstruct", PRETRAINED, DIGIT, "--output", tmp_path / "out", *words)
    for run in (cpp, python):
        assert run.returncode == 2
        assert f"error: --allow-operator: MXNet has no operator '{name}'" in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("num_group", ["1", "2L"], ["0", "-1", "2147483648", "nan", "inf", "x", "1e10"]),
        ("kernel", ["(3, 3)", "[3,3]", "()", "(3L, 3L)"], ["(-1, 3)", "(65536, 65536)", "(3, x)"]),
        ("stride", ["(1, 1)"], ["(0, 0)"]),
        ("num_args", ["1"], ["2", "1000000000", "-1"]),
        ("num_outputs", ["2"], ["0", "1000000000"]),
        ("in_data_locs", ["[0]"], ["[1]", "[-1]"]),
        ("axis", ["None", "-1", "(0, 1)"], ["99999", "1e99"]),
        ("step", ["(None, -1)", "0.5"], ["0", "(1, 0)"]),
        ("begin", ["(None, 3)", "-9223372036854775808"], ["1e30"]),
        ("shape", ["(0, -1)", "(-4, 2, -2)"], ["(65536, 65536)", "(1099511627776,)", "(1, -7)"]),
        ("__shape__", ["(0, 3)", "()"], ["(65536, 65536)"]),
        ("scalar", ["inf", "-inf", "nan", "1e400"], []),
        ("pad", ["(" + "1," * 4096 + ")"], ["(" + "1," * 4097 + ")", "9" * 100]),
    ],
)
def test_numbers_are_bounded(name, good, bad):
    for text in good:
        check_attributes({name: text}, 1)
    for text in bad:
        with pytest.raises(ValueError, match=f"^{name} is "):
            check_attributes({name: text}, 1)


def set_attribute(operator: str, name: str, value: str):
    def change(nodes):
        next(node for node in nodes if node["op"] == operator)["attrs"][name] = value

    return change


def rename(nodes):
    activation(nodes)["name"] = "größer→"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (set_attribute("Convolution", "num_group", "0"), 3),
        (set_attribute("Convolution", "num_filter", "-1"), 3),
        (set_attribute("_mul_scalar", "scalar", "inf"), 0),
        (rename, 0),
    ],
    ids=["num_group", "num_filter", "infinity", "letters"],
)
def test_both_languages_have_the_same_answer(change, status, tmp_path):
    assert [found for found, _ in both(signed(tmp_path, change), tmp_path)] == [status, status]


def test_the_table_is_one_that_people_can_read():
    text = TABLE.read_text()
    assert max(map(len, text.splitlines())) <= 120
    for row in json.loads(text)["refused"]:
        assert row["operators"] == sorted(row["operators"])
