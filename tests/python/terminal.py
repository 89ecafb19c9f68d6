"""Runs a program on a terminal of so many columns, and prints as JSON what it wrote there and how it ended.

    python terminal.py COLUMNS PROGRAM ARGUMENT...

`lines` are what a reader sees, one after the other, without the codes that move the cursor: of a bar every state that was
drawn is one.
"""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main():
    columns, command = int(sys.argv[1]), sys.argv[2:]
    process, terminal = pty.fork()
    if process == 0:
        # The size has to be there before the program asks for it.
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execvp(command[0], command)
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        written += part
    _, status = os.waitpid(process, 0)
    text = CODES.sub("", written.decode("utf-8", "replace"))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    found = {"code": os.waitstatus_to_exitcode(status), "lines": [line for line in lines if line]}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
