#!/usr/bin/env python3
"""Proves that no code needs more than x86-64 or ARMv8 has unless the machine was asked first.

Usage: tools/check_isa.py [--prefix PREFIX] ARCHIVE...

Instructions of AVX and later, and ARM's products of bytes, may stand in two places: in files named
for their instruction set (*_avx*.cc, *_amx.cc, *_neon.cc, *_i8mm.cc), whose functions are reached
through tables that are chosen at run time, and in the clones of base/clones.h. A function of such a
file that the linker may take for that of another file (a weak symbol) is refused: it would run
everywhere. Needs binutils: PREFIXnm, PREFIXobjdump.
"""

import argparse
import pathlib
import re
import subprocess
import sys

NAMED_FILE = re.compile(r"_(avx\w*|amx|neon|i8mm)\.cc\.o$")
CLONE = re.compile(r"\.(avx2|avx512f)\.\d+$")
MEMBER = re.compile(r"^(\S+\.o):\s+file format")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
VECTOR = re.compile(r"^\s+[0-9a-f]+:\t(v(?!err|erw|mcall|mlaunch)\w+|tile\w+|tdp\w+|"
                    r"[su]+dot|[su]+mmla)\b")


def weak_symbols(nm, archive):
    """{(member, symbol)}"""
    listing = subprocess.run([nm, "-A", archive], capture_output=True, text=True)
    if listing.returncode != 0:
        sys.exit(f"{archive}: no archive that {nm} can read: {listing.stderr.strip()}")
    found = set()
    for line in listing.stdout.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[-2] in ("W", "V", "u"):
            found.add((fields[0].split(":")[1], fields[-1]))
    return found


def vector_functions(objdump, archive):
    """(member, symbol, instruction) of the first such instruction of every function."""
    dump = subprocess.Popen([objdump, "-d", "--no-show-raw-insn", archive],
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", default="", help="of the programs of binutils for another processor")
    parser.add_argument("archives", nargs="+", type=pathlib.Path, metavar="ARCHIVE")
    options = parser.parse_args()
    wrong = seen = 0
    for archive in options.archives:
        weak = weak_symbols(options.prefix + "nm", archive)
        for member, symbol, instruction in vector_functions(options.prefix + "objdump", archive):
            seen += 1
            if CLONE.search(symbol):
                continue
            if NAMED_FILE.search(member) and (member, symbol) not in weak:
                continue
            wrong += 1
            print(f"{archive.name}({member}): {symbol} uses {instruction}")
    print(f"{seen} functions use vector extensions, {wrong} of them unasked")
    if not seen:
        print("none found: these are not the archives, or not the programs to read them with")
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
