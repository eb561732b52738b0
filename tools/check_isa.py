#!/usr/bin/env python3
"""Proves that no code needs more than x86-64 has unless the machine was asked first.

Usage: tools/check_isa.py ARCHIVE...

Instructions of AVX and later may stand in two places: in files named for their instruction set
(*_avx2.cc, *_avx512*.cc, *_amx.cc), whose functions are reached through tables that CPUID chooses,
and in the clones of base/clones.h. A function of such a file that the linker may take for that of
another file (a weak symbol) is refused: it would run everywhere.
"""

import pathlib
import re
import subprocess
import sys

NAMED_FILE = re.compile(r"_(avx2|avx512\w*|amx)\.cc\.o$")
CLONE = re.compile(r"\.(avx2|avx512f)\.\d+$")
MEMBER = re.compile(r"^(\S+\.o):\s+file format")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
VECTOR = re.compile(r"^\s+[0-9a-f]+:\t(v(?!err|erw|mcall|mlaunch)\w+|tile\w+|tdp\w+)\b")


def weak_symbols(archive):
    """{(member, symbol)}"""
    listing = subprocess.run(["nm", "-A", archive], check=True, capture_output=True, text=True).stdout
    found = set()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[-2] in ("W", "V", "u"):
            found.add((fields[0].split(":")[1], fields[-1]))
    return found


def vector_functions(archive):
    """(member, symbol, instruction) of the first such instruction of every function."""
    dump = subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", archive],
                            stdout=subprocess.PIPE, text=True)
    member = symbol = None
    for line in dump.stdout:
        if symbol is not None and (match := VECTOR.match(line)):
            yield member, symbol, match[1]
            symbol = None
        elif match := FUNCTION.match(line):
            symbol = match[1]
        elif match := MEMBER.match(line):
            member = match[1]
    if dump.wait() != 0:
        sys.exit(f"objdump failed on {archive}")


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    wrong = seen = 0
    for archive in map(pathlib.Path, sys.argv[1:]):
        weak = weak_symbols(archive)
        for member, symbol, instruction in vector_functions(archive):
            seen += 1
            if CLONE.search(symbol):
                continue
            if NAMED_FILE.search(member) and (member, symbol) not in weak:
                continue
            wrong += 1
            print(f"{archive.name}({member}): {symbol} uses {instruction}")
    print(f"{seen} functions use vector extensions, {wrong} of them unasked")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
