"""The command `onnxquant`."""

import os
import signal
import sys


def main():
    """Runs the command on the arguments of the process, and ends it with the command's exit code."""
    # As any other program, and not only when Python has its turn; what is ignored stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from onnxquant import _native, _place

    sys.exit(_native.main(sys.argv[1:], _place.program(), _place.packages()))


if __name__ == "__main__":
    # Started by its path, as `_place.program` does: the package is beside this file, under whatever name is first in the
    # way.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    main()
