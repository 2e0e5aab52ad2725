"""Autospecs of the real TensorRT classes that also hold to their signatures, which the bindings state in their docstrings only."""

from __future__ import annotations

import enum
import re
from unittest.mock import create_autospec

import tensorrt as trt

SIMPLE = {"int": int, "typing.SupportsInt": int, "str": str, "bool": bool, "tuple": tuple, "list": list, "typing_extensions.Buffer": bytes,
          "buffer": bytes, "tensorrt_bindings.tensorrt.Dims": tuple, "object": object}  # fmt: skip


def overloads(method) -> list[list[tuple[str, str, bool]]]:
    """Return the parameters (name, type, optional) of each overload, without self."""
    signatures = re.findall(rf"^(?:\d+\. )?{method.__name__}\((.*)\) -> ", method.__doc__, re.M)
    found = []
    for signature in signatures:
        if signature.startswith("*args"):
            continue
        parts = re.split(r", (?=\w+: )", re.sub(r"<([^<>]*)>", lambda m: m[0].replace(": ", "="), signature))
        parameters = [re.fullmatch(r"(\w+): (.*?)( = .*)?", part).groups() for part in parts]
        found.append([(name, kind, default is not None) for name, kind, default in parameters[1:]])
    assert found, f"no signature in the docstring of {method}"
    return found


def fits(value, kind: str) -> bool:
    if value is None:
        return True  # pybind11 takes None for any object; what must not be None is a matter of behaviour
    if kind in SIMPLE:
        return isinstance(value, SIMPLE[kind]) and not (kind == "int" and isinstance(value, bool))
    wanted = getattr(trt, kind.rsplit(".", 1)[-1], None)
    return isinstance(wanted, (type, enum.EnumMeta)) and isinstance(value, wanted)


def matches(parameters, arguments, keywords) -> bool:
    names = [name for name, _, _ in parameters]
    if len(arguments) > len(parameters) or set(keywords) - set(names[len(arguments) :]):
        return False
    given = dict(zip(names, arguments)) | keywords
    return all(fits(given[name], kind) if name in given else optional for name, kind, optional in parameters)


def checked(method, behaviour):
    """Return `behaviour` behind the method's real signature."""
    known = overloads(method)

    def call(*arguments, **keywords):
        if not any(matches(parameters, arguments, keywords) for parameters in known):
            raise TypeError(f"{method.__qualname__}{arguments} {keywords} fits none of {known}")
        return behaviour(*arguments, **keywords)

    return call


def strict(cls, properties=None, **methods):
    """Return an autospec of a class: `methods` answer, all others must not be called; `properties` have values."""
    mock = create_autospec(cls, instance=True, spec_set=True)
    for name in dir(cls):
        member = getattr(cls, name)
        if name.startswith("_") or not callable(member):
            continue

        def unexpected(*_, name=name, **__):
            raise AssertionError(f"{cls.__name__}.{name} is called, but no test says what it does")

        getattr(mock, name).side_effect = checked(member, methods[name]) if name in methods else unexpected
    for name, value in (properties or {}).items():
        assert isinstance(getattr(cls, name), property), name
        setattr(mock, name, value)
    missing = set(methods) - set(dir(cls))
    assert not missing, f"{cls.__name__} of TensorRT {trt.__version__} has no {missing}"
    return mock


def constructor(cls, make):
    """Return what stands for a class: called with what its __init__ takes."""
    return checked(cls.__init__, make)
