"""Writes records into a folder until an operation fails, and says on standard output what it is about to do
("try ...") and what is done ("did ..."), each as one line. tests/crash.rs kills the file system below it.

usage: writer.py FOLDER KIND FIRST
KIND: new (records never written before), over (the same few truncated and written), save (written beside and
renamed over), line (lines appended to a log), drop (written and removed). FIRST is the first number to use.

Every value begins with its number, its body's length and its body's SHA-256, so that a reader can tell a whole
value from a part or a mixture.
"""

import hashlib
import os
import random
import sys

folder, kind, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(f"{kind} {first}")
# Held open: what is mounted at the same place later is none of this program's business.
store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def value(number):
    body = chance.randbytes(chance.choice([10, 1000, 5000, 60000, 250000]))
    return f"{number} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def write(name, flags, data, part=16384):
    fd = os.open(name, flags | os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=store)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view[:part]) :]
    finally:
        os.close(fd)  # its error counts: a close that fails acknowledges nothing


def run():
    number = first
    while True:
        number += 1
        if kind == "line":
            mark = hashlib.sha256(str(number).encode()).hexdigest()
            say("try", "line", "log", number)
            write("log", os.O_APPEND, f"{number} {mark}\n".encode())
            say("did", "line", "log", number)
            continue
        name = f"new-{number}" if kind == "new" else f"{kind}-{number % 5}"
        say("try", "put", name, number)
        if kind == "save":
            aside = f".{name}.tmp"
            write(aside, os.O_TRUNC, value(number))
            os.rename(aside, name, src_dir_fd=store, dst_dir_fd=store)
        else:
            write(name, os.O_TRUNC, value(number))
        say("did", "put", name, number)
        if kind == "drop" and number % 2:
            say("try", "gone", name, number)
            os.unlink(name, dir_fd=store)
            say("did", "gone", name, number)


try:
    run()
except OSError as error:
    say("stopped", error.errno, error.strerror.replace(" ", "-"))
