# Cleans up behind a lab: `sh -c SCRIPT janitor CGROUP DIR`.
# The lab's process holds the other end of standard input. It closes when the lab is dropped, and also when the
# process is killed with -9, so what follows runs in every case. Each line read names one more path to remove.
trap '' HUP INT TERM
cgroup=$1
dir=$2
shift
while IFS= read -r path; do set -- "$@" "$path"; done

if [ -d "$cgroup" ]; then
    echo 1 > "$cgroup/cgroup.kill"
    tries=0
    while grep -q 'populated 1' "$cgroup/cgroup.events" && [ "$tries" -lt 250 ]; do
        tries=$((tries + 1))
        sleep 0.02
    done
    find "$cgroup" -depth -type d -exec rmdir {} \;
fi

# An agent may have mounted something (bpffs, the namespaces of its tasks) in its directories.
while read -r _ point _; do
    case $point in "$dir"/*) umount --lazy "$point" ;; esac
done < /proc/mounts
rm -rf --one-file-system "$@"
