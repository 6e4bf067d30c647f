"""Instruction sets, read from the kernel's words."""

from __future__ import annotations

from gddctl.runtime.cpu import describe, parse_cpuinfo, this_cpu, usable_cores

X86 = "processor : 0\nmodel name : A\nflags : fpu avx2 avx512f {extra}\n\nprocessor : 1\nmodel name : B\nflags : fpu\n"
ARM = "processor : 0\nFeatures : fp asimd asimddp\n"


def test_x86_with_and_without_vnni() -> None:
    plain = parse_cpuinfo(X86.format(extra=""), "x86_64")
    assert plain.model == "A" and not plain.has_vnni and plain.int8_saturates
    for flag in ("avx_vnni", "avx512_vnni"):
        cpu = parse_cpuinfo(X86.format(extra=flag), "x86_64")
        assert cpu.has_vnni and not cpu.int8_saturates
    assert parse_cpuinfo(X86.format(extra="amx_int8"), "x86_64").describe().endswith("amx_int8")


def test_arm_does_not_saturate() -> None:
    cpu = parse_cpuinfo(ARM, "aarch64")
    assert not cpu.has_vnni and not cpu.int8_saturates
    assert "asimddp" in cpu.describe()


def test_nothing_known() -> None:
    cpu = parse_cpuinfo("", "riscv64")
    assert not (cpu.has_vnni or cpu.int8_saturates) and cpu.describe()


def test_this_machine() -> None:
    assert this_cpu().model in describe() and usable_cores() >= 1
