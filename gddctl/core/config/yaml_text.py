"""YAML as settings are written in it: 1e-3 is a number, and a key that stands twice is a mistake."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

# YAML 1.1, which PyYAML reads, takes a number without a point (1e-3) for text; YAML 1.2 does not.
_FLOAT_TAG = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$")
_STARTS = list("-+0123456789")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key '{key.value}' stands twice, first in line {seen[key.value]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


_Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, _STARTS)
_Dumper.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, _STARTS)  # so that the text "1e5" is written in quotes


def read_yaml(text: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, a key stands twice in one mapping, or a value contains itself.

    >>> read_yaml("lr: 1e-3")
    {'lr': 0.001}
    """
    value = yaml.load(text, _Loader)
    if _contains_itself(value, ()):
        raise yaml.YAMLError("a value contains itself")
    return value


def write_yaml(value: Any) -> str:
    """YAML that :func:`read_yaml` reads back to ``value``."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120))


def _contains_itself(value: Any, above: tuple[int, ...]) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return id(value) in above or any(_contains_itself(item, (*above, id(value))) for item in inner)
