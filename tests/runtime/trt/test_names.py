"""Every name of TensorRT and of the CUDA driver that the code touches is there, read off the code, so that none can be forgotten."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gddctl
from gddctl.runtime import cuda

ROOT = Path(gddctl.__file__).parent
FILES = sorted([*(ROOT / "export").glob("trt*.py"), *(ROOT / "export" / "trt").glob("*.py"), *(ROOT / "runtime").glob("trt*.py")])

# What a variable of these files holds of TensorRT's. Every other variable must be in PYTHON, so that a new one cannot be overlooked.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "settings": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timings": "ITimingCache",
    "layer": "ILayer",
    "between": "ICastLayer",
    "maker": "ILayer",
    "tensor": "ITensor",
    "plan": "IHostMemory",
    "runtime": "Runtime",
    "runtime_config": "IRuntimeConfig",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
}
# Variables of the same name that hold something of ours, and what is asked of those.
OURS = {"engine": {"name", "with_name", "info"}, "error": {"message", "strerror"}}
PYTHON_NAMES = """
    Path Spans _Batches _FLOATS _buffers _in _loaded _out _path _record _said _steps artifact batches bindings buffer cache
    config convs counts cuda device dict driver environ errors fields folder importlib info kept line loaded log logger
    logging makers meminfo name np number os out parent parsed path preprocess re reasons record self shutil signal
    sizes state temporary text threading time told
"""
# Called by the name that drivers before 12.8 export, JetPack 6's among them; newer ones keep it, with the same parameters.
OLDER = {"cuEventElapsedTime"}
PYTHON = set(PYTHON_NAMES.split())
ENUMS = {"severity": ("ILogger", "Severity"), "type": ("LayerType", "CONSTANT"), "dtype": ("DataType", "FLOAT")}  # values of these
RESULTS = {"get_input": "ITensor", "get_output": "ITensor", "get_layer": "ILayer", "get_timing_cache": "ITimingCache"}


def unknown(tree: ast.AST) -> set[str]:
    """Variables that something is asked of and that this test knows nothing about."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            found.add(node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id)
    enums = {names[0] for names, _ in chains(tree)}
    return found - PYTHON - set(CLASSES) - set(ENUMS) - enums - {"trt"}


def uses(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(class of the bindings, name asked of it, line)."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr in RESULTS:
            yield RESULTS[owner.func.attr], node.attr, node.lineno
        variable = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
        if variable in CLASSES and node.attr not in OURS.get(variable, set()):
            yield CLASSES[variable], node.attr, node.lineno


def chains(tree: ast.AST) -> Iterator[tuple[list[str], int]]:
    """``trt.A.B`` as ["A", "B"]; also of ``getattr(trt.A, "B")``."""
    for node in ast.walk(tree):
        names: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            names.insert(0, inner.attr)
            inner = inner.value
        is_root = isinstance(inner, ast.Name) and inner.id == "trt"
        if names and "trt" in names[:-1]:  # parsed.bindings.trt.X
            yield names[names.index("trt") + 1 :], getattr(node, "lineno", 0)
        elif names and is_root:
            yield names, getattr(node, "lineno", 0)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            owner, name = node.args[0], node.args[1]
            if (
                isinstance(owner, ast.Attribute)
                and isinstance(owner.value, ast.Name)
                and owner.value.id == "trt"
                and isinstance(name, ast.Constant)
            ):
                yield [owner.attr, str(name.value)], node.lineno


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed here", exc_type=ImportError)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_exists_in_the_real_bindings(rtx: Any, path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not unknown(tree), "say in CLASSES or PYTHON what these hold"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            variable = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            if variable in ENUMS:
                kind, member = ENUMS[variable]
                assert hasattr(getattr(getattr(rtx, kind), member), node.attr), f"line {node.lineno}: {variable}.{node.attr}"
    missing = [f"line {line}: {owner}.{name}" for owner, name, line in uses(tree) if not hasattr(getattr(rtx, owner), name)]
    for names, line in chains(tree):
        found: Any = rtx
        for name in names:
            found = getattr(found, name, None)
        if found is None:
            missing.append(f"line {line}: trt.{'.'.join(names)}")
    assert not missing


def test_the_reading_finds_what_is_used(rtx: Any) -> None:
    """Partner: names that everyone knows are used are among those found, and a wrong one is."""
    found, enums = set[tuple[str, str]](), set[str]()
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {(owner, name) for owner, name, _ in uses(tree)}
        enums |= {".".join(names) for names, _ in chains(tree)}
    assert {
        ("Builder", "build_serialized_network"), ("OnnxParser", "parse_from_file"), ("ParserError", "node_operator"),
        ("IBuilderConfig", "set_memory_pool_limit"), ("IBuilderConfig", "progress_monitor"), ("IOptimizationProfile", "set_shape"),
        ("ILayer", "get_output"), ("ITensor", "dtype"), ("Runtime", "deserialize_cuda_engine"), ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "execute_async_v3"), ("IExecutionContext", "set_input_shape"), ("ITimingCache", "serialize"),
        ("INetworkDefinition", "num_layers"),
    } <= found  # fmt: skip
    assert {
        "MemoryPoolType.WORKSPACE",
        "BuilderFlag.TF32",
        "TensorIOMode.INPUT",
        "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
        "Runtime",
    } <= enums
    wrong = ast.parse("self._context.execute_async_v9(1)\ntrt.MemoryPoolType.WORKSPACES\n")
    assert [name for owner, name, _ in uses(wrong) if not hasattr(getattr(rtx, owner), name)] == ["execute_async_v9"]
    assert unknown(ast.parse("engine.name\nplan_b.size()\n")) == {"plan_b"}
    assert ["MemoryPoolType", "WORKSPACES"] in [names for names, _ in chains(wrong)]


def test_the_layer_and_tensor_types_that_are_compared_exist(rtx: Any) -> None:
    """They are compared by name, since the numbers differ between versions."""
    from gddctl.export.trt import census
    from gddctl.runtime.trt_runtime import _INPUT_TYPES

    for name in (*census._KINDS, "QUANTIZE", "DEQUANTIZE"):
        assert name in rtx.LayerType.__members__
    for name in (*census._FLOATS, "INT8", *(kind for kind, _ in _INPUT_TYPES.values())):
        assert name in rtx.DataType.__members__


def header() -> str | None:
    """The text of ``cuda.h``, from the wheel that brings it."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        for path in Path(root).glob("*/include/cuda.h"):
            return path.read_text(encoding="utf-8", errors="replace")
    return None


@pytest.mark.parametrize("name", cuda.SIGNATURES)
def test_the_drivers_functions_take_what_the_header_says(name: str) -> None:
    """A pointer for a pointer, 32 or 64 bits for a number: a wrong one corrupts memory without a word."""
    text = header()
    if text is None:
        pytest.skip("cuda.h is not installed here: it comes with the extra gpu")
    # Programs write the plain name; the header turns it into the symbol that the library exports, which is what ctypes needs.
    symbols = dict(re.findall(r"^ *#define (cu\w+) +(?:__CUDA_API_PT[DS]*Z\()?(cu\w+)\)?$", text, re.MULTILINE))
    plain = next((written for written, symbol in symbols.items() if symbol == name), name)
    assert symbols.get(plain, plain) == name or name in OLDER, f"the header calls {symbols[plain]}"
    found = re.search(rf"^CUresult CUDAAPI {plain}\((.*?)\);", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{name} is not in cuda.h"
    given = [argument.strip() for argument in found[1].replace("\n", " ").split(",") if argument.strip() not in ("", "void")]
    assert [width(argument) for argument in given] == [kind_of(item) for item in cuda.SIGNATURES[name]], given


def width(argument: str) -> str:
    """Of a parameter in the header: pointer, 64 or 32."""
    handles = ("CUcontext", "CUstream", "CUgraph", "CUgraphExec", "CUevent")
    kind = argument.replace("const ", "").split()[0]
    if "*" in argument or kind in handles:
        return "pointer"
    return "64" if kind in ("CUdeviceptr", "size_t") or argument.startswith("unsigned long long") else "32"


def kind_of(item: Any) -> str:
    import ctypes

    if item is ctypes.c_void_p or not issubclass(item, ctypes._SimpleCData):
        return "pointer"
    return str(8 * ctypes.sizeof(item))


def test_no_flag_is_a_number() -> None:
    """``1 << 0`` means explicit batch in TensorRT 10 and strong typing in 11: only names are safe."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
                assert not isinstance(node.right, ast.Constant), f"{path.name}, line {node.lineno}"
