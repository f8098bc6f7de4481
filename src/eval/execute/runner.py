"""Runs one program and reports how it ended. Started by run.rs as `python -c THIS SCRIPT PATH...`.

Standard input is a file: the program's length in decimal, a line break, the program, and a token that is new for each run.
Standard output is the report: "started\n", then the token after a program that reached its end, or an exception's type, a zero
byte and its message. The token is read only then: before, no object of the interpreter holds it. What the program may have put
in the place of built-in functions is not called on the way to the token: everything is a local variable by then.
"""

import sys


def main():
    import builtins
    import os

    read, write, leave = os.read, os.write, os._exit
    run, anything, describe = exec, BaseException, failure
    # Not to be inherited, as the standard three would be.
    source, report = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    # Reading from it raises an OSError, and the interactive helpers are no functions, as in the official harness.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    builtins.exit = builtins.quit = None
    length = b""
    while not length.endswith(b"\n"):
        length += read(source, 1)
    left = int(length)
    blocks = []
    while left > 0:
        blocks.append(read(source, left))
        left -= len(blocks[-1])
    program = b"".join(blocks).decode("utf-8")
    sys.path[:] = sys.argv[1:]
    sys.argv[:] = [""]
    write(report, b"started\n")
    try:
        # A fresh dictionary as the official harness has it: __name__ is not "__main__".
        run(program, {})
    except anything as error:
        try:
            write(report, describe(error))
        finally:
            leave(1)
    write(report, read(source, 1024))
    leave(0)


def failure(error):
    try:
        message = str(error)
    except BaseException:
        message = ""
    return (type(error).__name__[:80] + "\0" + message[:1000]).encode("utf-8", "backslashreplace")


main()
