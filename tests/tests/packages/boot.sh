#!/bin/sh
# Boots a copy of this machine's system, under systemd, which runs use.sh and ends with its outcome.
# Usage: boot.sh deb|rpm PACKAGE, as the first process of its namespaces, with a network that has a default route.
# What is said comes into LOG beside the package.
set -eu
kind=$1 package=$2

# What is written goes to memory, and what runs here is out of sight.
mount --make-rprivate /
mount -t tmpfs copy /mnt
copy=/mnt/root
mkdir /mnt/upper /mnt/work $copy
mount -t overlay copy -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work $copy
mount --rbind /dev $copy/dev
mount -t proc proc $copy/proc
mount -t sysfs sys $copy/sys
mount -t bpf bpf $copy/sys/fs/bpf
mount -t cgroup2 cgroup $copy/sys/fs/cgroup
mount -t tmpfs run $copy/run
mkdir $copy/run/test $copy/run/package
mount --bind "$(dirname "$0")" $copy/run/test
mount --bind "$(dirname "$package")" $copy/run/package

# Of the services of this machine none is to run, and a policy that packages start none does not hold for the copy.
rm -rf $copy/etc/systemd/system/*.wants $copy/usr/sbin/policy-rc.d
# An index of all manual pages takes half a minute.
rm -f $copy/var/lib/man-db/auto-update
ln -sf /lib/systemd/system/multi-user.target $copy/etc/systemd/system/default.target
mkdir $copy/etc/systemd/system/multi-user.target.wants
cat >$copy/etc/systemd/system/use.service <<UNIT
[Unit]
After=network-online.target
SuccessAction=exit-force
FailureAction=exit-force
SuccessActionExitStatus=0
FailureActionExitStatus=1
[Service]
Type=oneshot
ExecStart=/bin/sh /run/test/use.sh $kind /run/package/$(basename "$package")
StandardOutput=append:/run/package/$kind.log
StandardError=inherit
UNIT
ln -s ../use.service $copy/etc/systemd/system/multi-user.target.wants/

# Nothing of the lab's environment: the program is to be found where it is installed.
exec chroot $copy env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=null --show-status=no
