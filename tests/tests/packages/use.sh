#!/bin/sh
# Installs a package, uses what it brings, and removes it. Usage: use.sh deb|rpm PACKAGE, on a machine run by systemd.
set -eu
kind=$1 package=$2
export HOME=/root

fail() {
    echo "use.sh: $*"
    journalctl --no-pager --lines=50 --unit=mesh.service
    exit 1
}

# Tries a command for ten seconds.
comes() {
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "does not come true: $*"
}

# What the kernel holds of a mesh, and the files of one.
traces() {
    ip -brief link
    nft list ruleset
    ls -A /sys/fs/bpf
    find /usr /etc /var/lib /run \( -path /run/package -o -path /usr/src -o -path /var/lib/dpkg \) -prune \
        -o -name '*mesh*' -print
}
traces >/tmp/before

# The watchdog is to bark while somebody waits for it.
mkdir -p /run/systemd/system/mesh.service.d
printf '[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\n' >/run/systemd/system/mesh.service.d/soon.conf

# Debian starts what it installs; others leave that to who installs it.
case $kind in
deb) dpkg --install "$package" ;;
rpm) rpm --install --nodeps "$package" && systemctl enable --now mesh.service mesh-etcd.path ;;
esac
mesh --version
for page in mesh mesh-service-create; do
    man --pager=cat $page 2>/dev/null | grep -q '^NAME' || fail "there is no manual page of $page"
done
bash -c '. /usr/share/bash-completion/completions/mesh && complete -p mesh' || fail 'bash completes nothing'
systemctl is-active mesh.service mesh-etcd.path || fail 'the agent does not run'

serves() {
    curl --silent --fail --max-time 2 http://127.0.0.1:8080/README.md | cmp --silent - /usr/share/doc/mesh/README.md
}
mesh network create app
mesh service create --name web --network app --publish 8080:8000 --replicas 1 \
    --cmd 'python3 -m http.server --directory /usr/share/doc/mesh 8000'
comes serves
task=$(mesh service ps --quiet web)

# What a task is told when it asks once for a name.
inside=/proc/$(mesh task inspect --format json "$task" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Origin"]["Pid"])')/ns/net
ask() { nsenter --net="$inside" dig +short +tries=1 +time=4 @127.0.0.11 web; }
kept() { systemctl show --property=NFileDescriptorStore --value mesh.service; }
comes ask
vip=$(ask)
[ "$(kept)" = 2 ] || fail "systemd keeps $(kept) sockets"

# Without the agent everything goes on, but for names: nobody says when there will be one again.
systemctl stop mesh.service
serves || fail 'the service goes with the agent'
[ "$(kept)" = 0 ] || fail "systemd keeps $(kept) sockets of a service that is stopped"
systemctl start mesh.service
comes ask
# An agent that hangs is started anew.
kill -STOP "$(systemctl show --property=MainPID --value mesh.service)"
is_new() { [ "$(systemctl show --property=NRestarts --value mesh.service)" = 1 ]; }
comes is_new
serves || fail 'the service goes with an agent that hangs'
comes mesh status
[ "$(mesh service ps --quiet web)" = "$task" ] || fail 'the task did not outlive the agents'

# When it is killed, who asks waits for the next one.
kill -KILL "$(systemctl show --property=MainPID --value mesh.service)"
answer=$(ask) || fail "a name goes with an agent that is killed: $answer"
[ "$answer" = "$vip" ] || fail "a name is another one after an agent was killed: $answer"
comes mesh status

# It is started anew, then another version takes over, and nobody waits for a name in vain.
while [ ! -e /tmp/enough ]; do ask || echo 'no answer'; done >/tmp/answers 2>&1 &
asking=$!
systemctl restart mesh.service
comes mesh status
case $kind in
deb) dpkg --install "$package" ;;
rpm) rpm --upgrade --replacepkgs --nodeps "$package" ;;
esac
comes mesh status
serves || fail 'the service goes with an upgrade'
touch /tmp/enough
wait $asking
[ "$(sort -u /tmp/answers)" = "$vip" ] || fail "not all questions were answered: $(sort /tmp/answers | uniq -c)"
[ "$(wc -l </tmp/answers)" -gt 20 ] || fail 'too few questions were asked'
rm /tmp/enough /tmp/answers

mesh service rm web
case $kind in
deb) dpkg --purge mesh ;;
rpm) rpm --erase mesh && rm -r /var/lib/mesh ;;
esac
rm -r /run/systemd/system/mesh.service.d
traces >/tmp/after
diff /tmp/before /tmp/after || fail 'what was removed has left the above'
