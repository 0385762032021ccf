"""A UDP server that tells who answers and who asked: `udp.py PORT [NAME]`.

The name is the second argument, or MESH_TASK_NAME. Any datagram gets "dns.1 from 192.168.77.100".
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
        _, peer = server.recvfrom(65536)
        server.sendto(f"{name} from {peer[0].removeprefix('::ffff:')}\n".encode(), peer)
    except OSError:
        pass  # an ICMP error for an earlier answer: that client is gone
