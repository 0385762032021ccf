#!/bin/sh
# Installs a package into a copy of this machine's system, uses it, and removes it.
# Usage: use.sh deb|rpm PACKAGE CGROUP, in a mount namespace and a network namespace of its own, with an address to reach.
set -eu
kind=$1 package=$2 cgroup=$3

fail() {
    echo "use.sh: $*" >&2
    cat /run/agent.log >&2 2>/dev/null || true
    exit 1
}

# What is written goes to memory, and what ran here before is out of sight.
if [ "${COPY:-}" != yes ]; then
    mount --make-rprivate /
    mount -t tmpfs copy /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay copy -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
    mount --rbind /dev /mnt/root/dev
    mount --rbind /proc /mnt/root/proc
    mount --rbind /sys /mnt/root/sys
    mount -t tmpfs run /mnt/root/run
    mount -t bpf bpf /mnt/root/sys/fs/bpf
    mkdir /mnt/root/run/package
    mount --bind "$(dirname "$package")" /mnt/root/run/package
    mount --bind "$(dirname "$0")" /mnt/root/mnt
    # Nothing of the lab's environment: the program is to be found where it is installed.
    exec env -i COPY=yes HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        chroot /mnt/root /bin/sh /mnt/use.sh "$kind" "/run/package/$(basename "$package")" "$cgroup"
fi

# What this machine's kernel holds of a mesh, and the files of one.
traces() {
    ip -brief link
    nft list ruleset
    ls -A /sys/fs/bpf
    find /usr /etc /var/lib /run -path /run/package -prune -o -name '*mesh*' ! -path '/var/lib/dpkg/*' ! -path '/usr/src/*' -print
}
traces >/tmp/before

case $kind in
deb) dpkg --install "$package" ;;
rpm) rpm --install --nodeps "$package" ;;
esac
[ "$(command -v mesh)" = /usr/bin/mesh ] || fail "mesh is $(command -v mesh)"
mesh --version
for page in mesh mesh-service-create; do
    man --pager=cat $page | grep -q '^NAME' || fail "there is no manual page of $page"
done
bash -c '. /usr/share/bash-completion/completions/mesh && complete -p mesh' || fail 'bash completes nothing'
systemd-analyze verify /usr/lib/systemd/system/mesh.service /usr/lib/systemd/system/mesh-etcd.service \
    /usr/lib/systemd/system/mesh-etcd.path || fail 'the units are not sound'

mesh agent --set node.name=n1 --set node.cgroup="$cgroup" >/run/agent.log 2>&1 &
agent=$!
for _ in $(seq 100); do
    mesh status >/dev/null 2>&1 && break
    kill -0 $agent || fail 'the agent ended'
    sleep 0.1
done
mesh network create app
mesh service create --name web --network app --publish 8080:8000
mesh task run --detach --service web -- python3 -m http.server --directory /usr/share/doc/mesh 8000
for _ in $(seq 100); do
    curl --silent --fail --max-time 2 http://127.0.0.1:8080/README.md >/run/page && break
    sleep 0.1
done
cmp /run/page /usr/share/doc/mesh/README.md || fail 'the service does not answer'
mesh task rm --force web.1 || fail 'the task does not go'
kill $agent
wait $agent || true

case $kind in
deb) dpkg --purge mesh ;;
rpm) rpm --erase mesh && rm -r /var/lib/mesh ;;
esac
[ ! -e /usr/bin/mesh ] || fail 'the program is still there'
traces >/tmp/after
diff /tmp/before /tmp/after || fail 'what was removed has left the above'
