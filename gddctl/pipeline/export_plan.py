"""Which files an export makes, by label, in the order in which one is made from another."""

from __future__ import annotations

from gddctl.core.artifact.manifest import artifact_name
from gddctl.core.config.sections import ExportConfig, Graph, Precision, Target


def kinds(config: ExportConfig) -> list[tuple[Precision, Target]]:
    """Precision and target of every ONNX file to make; FP32, from which the others are made, is always there.

    >>> kinds(ExportConfig(precisions=("fp16", "int8"), targets=("ort-cpu", "tensorrt")))
    [('fp32', 'any'), ('fp16', 'any'), ('int8', 'ort-cpu'), ('int8', 'tensorrt')]
    """
    found: list[tuple[Precision, Target]] = [("fp32", "any")]
    if "fp16" in config.precisions:
        found.append(("fp16", "any"))
    if "int8" in config.precisions:
        found += [("int8", target) for target in config.targets if target not in ("any", "ort-cuda")]
    return found


def graphs(config: ExportConfig) -> list[Graph]:
    """The logits graph, from which the deploy graph is made, is always there."""
    return ["logits", "deploy"] if "deploy" in config.graphs else ["logits"]


def export_names(name: str, config: ExportConfig) -> dict[str, str]:
    """The ONNX files of a student called ``name``, by label.

    >>> list(export_names("student", ExportConfig(graphs=("logits",))))
    ['fp32-any.logits', 'int8-ort-cpu.logits']
    """
    return {
        f"{precision}-{target}.{graph}": artifact_name(name, precision, target, graph)
        for precision, target in kinds(config)
        for graph in graphs(config)
    }


def engine_names(name: str, config: ExportConfig) -> dict[str, str]:
    """The engines, by the label of the ONNX file that each is built from; none unless the config asks for engines.

    >>> engine_names("student", ExportConfig(precisions=("fp16",), targets=("tensorrt",), graphs=("deploy",), engines=True))
    {'fp16-any.deploy': 'student-fp16-tensorrt.deploy.engine'}
    """
    if not config.engines:
        return {}
    return {
        f"{precision}-{target}.{graph}": artifact_name(name, precision, "tensorrt", graph, suffix=".engine")
        for precision, target in kinds(config)
        for graph in config.graphs
        if precision in config.precisions and target in ("any", "tensorrt")
    }
