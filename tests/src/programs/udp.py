"""A UDP server that tells who answers and who asked: `udp.py PORT [NAME]`.

The name is the second argument, or MESH_TASK_NAME. A datagram "peer" gets "192.168.77.100:43210", one that
begins with "echo" comes back, and any other gets "dns.1 from 192.168.77.100".
"""

import os
import socket
import sys

name = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("MESH_TASK_NAME", socket.gethostname())
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", int(sys.argv[1])))
while True:
    try:
        said, peer = server.recvfrom(65536)
        host = peer[0].removeprefix("::ffff:")
        answer = f"{name} from {host}\n".encode()
        if said == b"peer":
            answer = (f"[{host}]" if ":" in host else host).encode() + f":{peer[1]}\n".encode()
        elif said.startswith(b"echo"):
            answer = said
        server.sendto(answer, peer)
    except OSError:
        pass  # an ICMP error for an earlier answer: that client is gone
