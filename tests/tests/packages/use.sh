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

# Without the agent everything goes on.
systemctl stop mesh.service
serves || fail 'the service goes with the agent'
systemctl start mesh.service
# An agent that hangs is started anew.
kill -STOP "$(systemctl show --property=MainPID --value mesh.service)"
is_new() { [ "$(systemctl show --property=NRestarts --value mesh.service)" = 1 ]; }
comes is_new
serves || fail 'the service goes with an agent that hangs'
comes mesh status
[ "$(mesh service ps --quiet web)" = "$task" ] || fail 'the task did not outlive the agents'

# Another version takes over.
case $kind in
deb) dpkg --install "$package" ;;
rpm) rpm --upgrade --replacepkgs --nodeps "$package" ;;
esac
comes mesh status
serves || fail 'the service goes with an upgrade'

mesh service rm web
case $kind in
deb) dpkg --purge mesh ;;
rpm) rpm --erase mesh && rm -r /var/lib/mesh ;;
esac
rm -r /run/systemd/system/mesh.service.d
traces >/tmp/after
diff /tmp/before /tmp/after || fail 'what was removed has left the above'
