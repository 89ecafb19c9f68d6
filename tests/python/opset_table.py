#!/usr/bin/env python3
"""Writes the table of operator versions that the pass `raise_opset` reads.

    python tests/python/opset_table.py            # rewrites crates/passes/src/raise_opset/table.rs
    python tests/python/opset_table.py --check    # fails when the file differs

The versions come from the operator schemas of the installed `onnx` package. After an update of that
package, read the changelog of every new version and add a step where it is not compatible.
"""
import collections
import pathlib
import sys

import onnx

TABLE = pathlib.Path(__file__).resolve().parents[2] / "crates/passes/src/raise_opset/table.rs"

HEADER = """\
//! Versions of the operators of the default domain, written by `tests/python/opset_table.py` from onnx {version}.

/// The newest opset the table knows.
pub(super) const NEWEST: i64 = {newest};

/// IR version that came with an opset: (opset, IR version), ascending.
#[rustfmt::skip]
pub(super) const IR_VERSIONS: &[(i64, i64)] = &[{ir}];

/// An operator, the opsets that changed it (first one: that brought it), and the one that withdrew it.
pub(super) struct Operator {{
    pub(super) name: &'static str,
    pub(super) versions: &'static [i64],
    pub(super) withdrawn: Option<i64>,
}}

const fn operator(name: &'static str, versions: &'static [i64]) -> Operator {{
    Operator {{ name, versions, withdrawn: None }}
}}

/// Every operator, sorted by name.
#[rustfmt::skip]
pub(super) const OPERATORS: &[Operator] = &[
"""


def operators():
    """(name, versions, opset that withdrew the operator or None), sorted by name."""
    history = collections.defaultdict(dict)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history[schema.name][schema.since_version] = schema
    for name in sorted(history):
        versions = sorted(history[name])
        last = versions[-1]
        yield name, versions, last if history[name][last].deprecated else None


def ir_versions():
    """(opset, lowest IR version of a release with it), ascending."""
    oldest = {}
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        oldest[opset] = min(ir_version, oldest.get(opset, ir_version))
    return sorted(oldest.items())


def table():
    newest = onnx.defs.onnx_opset_version()
    ir = ", ".join(f"({opset}, {version})" for opset, version in ir_versions() if opset <= newest)
    lines = [HEADER.format(version=onnx.__version__, newest=newest, ir=ir)]
    for name, versions, withdrawn in operators():
        versions = ", ".join(map(str, versions))
        if withdrawn is None:
            lines.append(f'    operator("{name}", &[{versions}]),\n')
        else:
            lines.append(f'    Operator {{ name: "{name}", versions: &[{versions}], withdrawn: Some({withdrawn}) }},\n')
    return "".join(lines) + "];\n"


def main():
    if sys.argv[1:] == ["--check"]:
        if TABLE.read_text() != table():
            sys.exit(f"{TABLE} differs from onnx {onnx.__version__}: run {sys.argv[0]}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        TABLE.write_text(table())


if __name__ == "__main__":
    main()
