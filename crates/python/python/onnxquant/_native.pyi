from os import PathLike
from typing import Any, List, Optional, Sequence, Tuple

__version__: str

def main(args: Sequence[str], program: Sequence[str], packages: Sequence[str]) -> int: ...
def run(
    args: Sequence[str],
    program: Sequence[str],
    packages: Sequence[str],
    listener: Any,
    has_metric: bool,
    has_store: bool,
) -> Tuple[str, Optional[str], str]: ...
def option_table(subcommand: Optional[str] = None) -> str: ...
def inputs(
    path: "str | PathLike[str]", listener: Any
) -> List[Tuple[str, str, Optional[List[Optional[int]]], bool]]: ...
