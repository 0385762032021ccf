"""A process with sockets: each line of input is a call, and is answered with a line.

    KIND HOST PORT [SOURCE]   opens a socket (tcp; udp, which is connected; sendto, which is not; of IPv6 for both
                              families with a 6 behind) and asks who is there
    ready                     does nothing
    again                     asks once more by the last socket
    hear                      waits for what becomes of it

The answer is "WHO is WHOM, told TOLD, really REALLY": the server's answer, whom the process is told that it talks to,
and whom the kernel sends to. Or it is the name of the error.
"""

import errno
import ipaddress
import socket
import struct
import sys


def really(s):
    """The other end as the kernel has it."""
    kind = "tcp" if s.type == socket.SOCK_STREAM else "udp"
    port = s.getsockname()[1]
    for file in (kind, kind + "6"):
        for line in open(f"/proc/thread-self/net/{file}").readlines()[1:]:
            own, other = line.split()[1:3]
            if int(own.split(":")[1], 16) == port:
                address, at = other.split(":")
                words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
                return name((str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))), int(at, 16)))
    return "nobody"


def name(address):
    host = address[0]
    if host.startswith("::ffff:"):
        host = str(ipaddress.ip_address(host).ipv4_mapped)
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def start(kind, host, port, source=None):
    global s, to, lines
    six = ":" in host or kind.endswith("6")
    kind = kind.removesuffix("6")
    to = ("::ffff:" + host if six and ":" not in host else host, int(port))
    s = socket.socket(
        socket.AF_INET6 if six else socket.AF_INET,
        socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM,
    )
    s.settimeout(1)
    if source:
        s.bind((source, 0))
    if kind != "sendto":
        s.connect(to)
        to = None
    lines = s.makefile("rb") if kind == "tcp" else None
    return ask(True)


def ask(first):
    if lines:
        if not first:
            s.sendall(b"still there\n")
        said, told = lines.readline(), s.getpeername()
    elif to is None:
        s.send(b"who?")
        said, told = s.recv(500), s.getpeername()
    else:
        s.sendto(b"who?", to)
        said, told = s.recvfrom(500)
    who, whom = said.decode().split()[:2]
    return f"{who} is {whom}, told {name(told)}, really {really(s)}"


def hear():
    while s.recv(500):
        pass
    return "the end"


for line in sys.stdin:
    words = line.split()
    try:
        match words:
            case ["ready"]:
                answer = "yes"
            case ["again"]:
                answer = ask(False)
            case ["hear"]:
                answer = hear()
            case _:
                answer = start(*words)
    except TimeoutError:
        answer = "nothing"
    except OSError as error:
        answer = errno.errorcode.get(error.errno, str(error))
    print(answer, flush=True)
