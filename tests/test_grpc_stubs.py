"""The messages of the gRPC door are those of its .proto."""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

import cluster.doors.grpc as door

SOURCE = Path(door.__file__).parent
PROTO = "snapring/v1/snapring.proto"


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    """`scripts/proto` would change nothing."""
    words = [f"-I{SOURCE}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", PROTO]
    assert protoc.main(["protoc", f"-I{files('grpc_tools') / '_proto'}", *words]) == 0
    for name in ("snapring_pb2.py", "snapring_pb2.pyi"):
        generated = (tmp_path / PROTO).with_name(name).read_text()
        assert (SOURCE / PROTO).with_name(name).read_text() == generated, "run scripts/proto"
