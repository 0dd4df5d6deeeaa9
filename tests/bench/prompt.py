#!/usr/bin/env python3
"""prompt.py [PROGRAM [N]]: in a pseudo-terminal, the milliseconds from exec to the prompt, and the seconds from there to a digit of the
shipped checkpoint on the screen; the median and the range of N starts (11), then one line of JSON."""
import json
import os
import pty
import re
import select
import statistics
import sys
import tempfile
import time

TYPED = b'show(sluice.load("models/digits.safetensors"):sample { n = 1 })\n'
PROMPT = re.compile(rb"\r?> $|> \x1b\[K$|> $")


class Terminal:
    def __init__(self, program, home):
        self.began = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=home, TERM="xterm-256color", SLUICE_HISTORY="", SLUICE_INIT="")
            os.execv(program, [program])
        self.text = b""

    def wait(self, is_there, limit=120):
        """Seconds since the last call (or exec) until is_there(text); what came is dropped then."""
        while not is_there(self.text):
            ready, _, _ = select.select([self.fd], [], [], limit)
            if not ready:
                raise SystemExit("no answer; the terminal shows %r" % self.text)
            self.text += os.read(self.fd, 65536)
        spent = time.perf_counter() - self.began
        self.text = b""
        self.began = time.perf_counter()
        return spent

    def close(self):
        os.write(self.fd, b"os.exit()\n")
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        os.waitpid(self.pid, 0)


def at_prompt(text):
    return PROMPT.search(text) is not None


def drawn(text):
    """A picture's cells in colour, and the prompt after them."""
    return text.count(b"\x1b[38;") > 10 and at_prompt(text)


def main():
    program = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build/sluice")
    starts, digits = [], []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 11):
            terminal = Terminal(program, home)
            starts.append(1000 * terminal.wait(at_prompt))
            os.write(terminal.fd, TYPED)
            digits.append(terminal.wait(drawn))
            terminal.close()
    print("exec to the prompt    %6.1f ms (%.1f to %.1f)" % (statistics.median(starts), min(starts), max(starts)))
    print("prompt to a digit     %6.2f s  (%.2f to %.2f)" % (statistics.median(digits), min(digits), max(digits)))
    print(json.dumps({"prompt_ms": starts, "digit_s": digits}))


main()
