"""Checks that the schema has the messages, fields and enum values of the `onnx` package.

    cargo xtask codegen --check --descriptor schema.bin
    python tests/python/compare_schema.py schema.bin

Compared are names, numbers, types, labels, options, oneofs and reserved numbers; not the
order in the file, and not the comments. Exit status 1 and a diff when they differ.
"""

import difflib
import sys

from google.protobuf import descriptor_pb2
from onnx import onnx_ml_pb2


def messages(parent):
    """Every message with its dotted name, nested ones included."""
    pending = [(m.name, m) for m in parent.message_type]
    while pending:
        name, message = pending.pop()
        yield name, message
        pending += [(f"{name}.{m.name}", m) for m in message.nested_type]


def enum_lines(name, enum):
    return [f"enum {name} {value.name} = {value.number}" for value in enum.value]


def field_line(name, message, field):
    plain = descriptor_pb2.FieldDescriptorProto()
    plain.CopyFrom(field)
    plain.ClearField("json_name")
    plain.ClearField("oneof_index")
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    text = " ".join(str(plain).split())
    return f"field {name} {field.number:3} oneof={oneof} {text}"


def schema_lines(file):
    lines = [line for enum in file.enum_type for line in enum_lines(enum.name, enum)]
    for name, message in messages(file):
        reserved = {n for r in message.reserved_range for n in range(r.start, r.end)}
        lines.append(f"message {name} reserved {sorted(reserved)} {sorted(message.reserved_name)}")
        lines += [field_line(name, message, field) for field in message.field]
        for enum in message.enum_type:
            lines += enum_lines(f"{name}.{enum.name}", enum)
    return sorted(lines)


def main():
    with open(sys.argv[1], "rb") as file:
        ours = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file[0]
    theirs = descriptor_pb2.FileDescriptorProto()
    onnx_ml_pb2.DESCRIPTOR.CopyToProto(theirs)
    ours, theirs = schema_lines(ours), schema_lines(theirs)
    if ours != theirs:
        print("\n".join(difflib.unified_diff(ours, theirs, "proto/onnx.proto", "onnx package", lineterm="", n=0)))
        return 1
    kinds = {kind: sum(line.startswith(kind) for line in ours) for kind in ("message", "field", "enum")}
    print(f"equal: {kinds['message']} messages, {kinds['field']} fields, {kinds['enum']} enum values")
    return 0


if __name__ == "__main__":
    sys.exit(main())
