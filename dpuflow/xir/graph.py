"""A whole `.xmodel`: reading, writing, building. What it is made of: `nodes`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from google.protobuf.message import DecodeError, EncodeError

from dpuflow.base.errors import UserError
from dpuflow.base.protobuf_pieces import pieces
from dpuflow.base.protobuf_seal import sealed_file, unsealed, unsealed_file
from dpuflow.xir import schema, shapes, validate
from dpuflow.xir.nodes import Op, OpGraph

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit for a message, hence for an xmodel file."""


class Graph(OpGraph):
    """A whole `.xmodel`: read, written, and extended op by op."""

    @classmethod
    def load(cls, path: Path | str, check: bool = True) -> Self:
        """Read a file; UserError when it is missing, not an xmodel, or (with `check`) ill-formed.

        `check` covers what every reader relies on (`validate.structure`); the full list of
        rules is `validate.validate`.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UserError(f"{path}: over 2 GiB, too large for an xmodel")
            data = unsealed_file(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return cls._parsed(data, path, check)

    @classmethod
    def from_bytes(cls, data: bytes, source: Path | str = "xmodel", check: bool = True) -> Self:
        """`load` from bytes; `source` names them in messages. A seal (`base.protobuf_seal`) is checked."""
        return cls._parsed(unsealed(data, source), source, check)

    @classmethod
    def _parsed(cls, data: bytes, source: Path | str, check: bool) -> Self:
        if not data:
            raise UserError(f"{source}: empty file; an .xmodel was expected. Remove it and make it again")
        proto = schema.message("Graph")()
        try:
            proto.ParseFromString(data)
        except (DecodeError, UnicodeDecodeError):
            raise UserError(
                f"{source}: not an .xmodel, or truncated or corrupt (it does not parse as serial_v2.Graph); "
                "make it again or give another file"
            ) from None
        if not proto.op_node:
            raise UserError(
                f"{source}: not an .xmodel (no ops in it); give a file that vai_c_xir or dpuflow wrote"
            )
        graph = cls(proto=proto, source=source)
        if check:
            validate.require(validate.structure(graph), source)
        return graph

    def to_bytes(self) -> bytes:
        """The file's content without its seal; equal graphs give equal bytes (map entries sorted by key)."""
        with self._writable():
            return self.proto.SerializeToString(deterministic=True)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except (EncodeError, ValueError) as error:
            raise UserError(f"graph {self.name!r} cannot be written as an xmodel: {error}") from None

    def copy(self) -> Self:
        """A graph of its own with the same content."""
        proto = schema.message("Graph")()
        proto.CopyFrom(self.proto)
        return type(self)(proto=proto, source=self.source)

    def save(self, path: Path | str, check: bool = True) -> None:
        """Write the file atomically; with `check`, UserError when a rule of `validate.validate` is broken.

        The check is the strict one; write somebody else's graph, custom ops included, without it.
        The file ends with a seal (`dpuflow.base.protobuf_seal`), which `load` checks and other readers skip.
        """
        if check:
            validate.require(validate.validate(self, strict=True), path)
        with sealed_file(path) as write, self._writable():
            written = 0
            for piece in pieces(self.proto):
                written += len(piece)
                if written > MAX_BYTES:
                    raise ValueError(f"protobuf takes up to {MAX_BYTES} bytes")
                write(piece)

    def add_op(
        self,
        name: str,
        type_: str,
        inputs: Mapping[str, str | Iterable[str]] | None = None,
        attrs: Mapping[str, Any] | None = None,
        tensor_name: str | None = None,
    ) -> Op:
        """Append an op and return it; its output tensor's shape and type are inferred (`dpuflow.xir.shapes`).

        inputs: {argument: op name or list of op names}, of ops that exist already. tensor_name: the
        op's name unless given. ValueError when the name is taken or inputs and attributes do not
        fit, KeyError when an input does not exist; the graph is then as before.
        """
        if name in self._by_name:
            raise ValueError(f"an op called {name!r} exists already")
        node = self.proto.op_node.add(op_name=name, op_type=type_)
        op = Op(node)
        try:
            for argument, names in (inputs or {}).items():
                op.set_input(argument, [names] if isinstance(names, str) else names)
            for key, value in (attrs or {}).items():
                op.attrs[key] = value
            node.output_tensor.tensor_name = tensor_name or name
            op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = shapes.infer(self, op)
        except Exception:
            del self.proto.op_node[-1]
            raise
        self.ops.append(op)
        self._by_name[name] = op
        return op
