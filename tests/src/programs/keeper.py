"""What a service manager does for descriptors that a service wants kept, as systemd does it.

keeper.py keep NOTIFY CONTROL      keeps what services send with FDSTORE=1, until FDSTOREREMOVE=1 (sd_notify(3))
keeper.py start CONTROL COMMAND…   becomes the command, which finds from 3 on what is kept (sd_listen_fds(3))
keeper.py names CONTROL            prints the names of what is kept, one a line
keeper.py give NOTIFY NAME         has a descriptor kept that is no socket of anybody's
"""

import os
import selectors
import socket
import struct
import sys

FIRST = 3
AT_ONCE = 200  # descriptors in one message; the kernel takes 253


def name_of(text):
    """As systemd's fdname_is_valid()."""
    plain = text.isascii() and text.isprintable() and ":" not in text and len(text) <= 255
    return text if plain else "stored"


def keep(notify, control):
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(notify)
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.bind(control)
    asked.listen()
    kept = []  # (name, descriptor)
    both = selectors.DefaultSelector()
    both.register(told, selectors.EVENT_READ)
    both.register(asked, selectors.EVENT_READ)
    while True:
        for key, _ in both.select():
            if key.fileobj is told:
                kept = hear(told, kept)
            else:
                answer(asked, kept)


def hear(told, kept):
    message, descriptors, _, _ = socket.recv_fds(told, 65536, 253)
    lines = message.decode().splitlines()
    named = [line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")]
    name = name_of(named[-1]) if named else "stored"
    if "FDSTOREREMOVE=1" in lines:
        for _, descriptor in (one for one in kept if one[0] == name):
            os.close(descriptor)
        return [one for one in kept if one[0] != name]
    known = {os.fstat(descriptor)[1:3] for _, descriptor in kept}
    for descriptor in descriptors:
        if "FDSTORE=1" in lines and os.fstat(descriptor)[1:3] not in known:
            kept = kept + [(name, descriptor)]
        else:
            os.close(descriptor)
    return kept


def answer(asked, kept):
    client, _ = asked.accept()
    with client:
        names = "\n".join(name for name, _ in kept).encode()
        client.sendall(struct.pack("!II", len(kept), len(names)) + names)
        descriptors = [descriptor for _, descriptor in kept]
        for begin in range(0, len(descriptors), AT_ONCE):
            part = descriptors[begin : begin + AT_ONCE]
            socket.send_fds(client, [b"x" * len(part)], part)
            client.recv(1)


def take(control):
    """Names and descriptors."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.connect(control)
    with server, server.makefile("rb", buffering=0) as head:
        count, length = struct.unpack("!II", head.read(8))
        names = b""
        while len(names) < length:
            names += head.read(length - len(names))
        descriptors = []
        while len(descriptors) < count:
            descriptors += socket.recv_fds(server, AT_ONCE, AT_ONCE)[1]
            server.sendall(b"x")
    return names.decode().split("\n")[:count], descriptors


def start(control, command):
    names, descriptors = take(control)
    # Out of the way first, so that none is overwritten before it is where it belongs.
    end = FIRST + len(descriptors)
    high = [os.dup2(descriptor, end + 1000 + place) for place, descriptor in enumerate(descriptors)]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, FIRST + place, inheritable=True)
    os.closerange(end, end + 1000 + len(high))
    if names:
        variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names))}
        os.environ.update(variables, LISTEN_FDNAMES=":".join(names))
    os.execvp(command[0], command)


def give(notify, name):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.connect(notify)
    reader, _ = os.pipe()
    socket.send_fds(manager, [f"FDSTORE=1\nFDNAME={name}\n".encode()], [reader])


match sys.argv[1:]:
    case ["keep", notify, control]:
        keep(notify, control)
    case ["start", control, *command]:
        start(control, command)
    case ["names", control]:
        print(*take(control)[0], sep="\n")
    case ["give", notify, name]:
        give(notify, name)
    case _:
        sys.exit(__doc__)
