#!/bin/sh
# Boots a systemd that can change nothing of this machine, with the units of a folder, of which
# judge.service is started. `boot.sh TARGET OUT UNITS [PROGRAM]` as root in new namespaces (see
# tests/systemd.rs); TARGET is where cargo builds, OUT the one folder that can be written to.
#
# systemd at its usual targets empties /tmp, sets kernel parameters and more. So nothing is left to the
# choice of units: every mount is made read-only first, and what must be written is private to the
# namespace. If any other mount can be written to, nothing is booted.
set -eu
target=$1 out=$2 units=$3 program=${4:-/lib/systemd/systemd}

mount --make-rprivate /
# Its mounts may lie upon each other, where a remount reaches the last only.
umount --lazy --recursive /dev
cut -d ' ' -f 5 /proc/self/mountinfo | while read -r mounted; do
    case $mounted in
        /proc | /proc/*) ;;
        *) mount -o remount,bind,ro "$mounted" ;;
    esac
done
for parameters in /proc/sys /proc/sysrq-trigger; do
    [ -e "$parameters" ] || continue
    mount --bind "$parameters" "$parameters"
    mount -o remount,bind,ro "$parameters"
done

mount -t tmpfs tmpfs /run
mkdir -p /run/target /run/out /run/systemd/system
mount --bind "$target" /run/target
mount --bind "$out" /run/out
mount -o remount,bind,rw /run/out
cd /run
for folder in /tmp /var /dev; do
    mount -t tmpfs tmpfs "$folder"
done
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mount -t cgroup2 cgroup2 /sys/fs/cgroup

writable=$(awk '$6 ~ /(^|,)rw(,|$)/ { print $5 }' /proc/self/mountinfo | sort -u | tr '\n' ' ')
allowed='/dev /proc /run /run/out /sys/fs/cgroup /tmp /var '
if [ "$writable" != "$allowed" ]; then
    echo "not contained: $writable can be written to, and only $allowed should" >&2
    exit 3
fi
for place in / /etc /usr /run/target /proc/sys/kernel; do
    if (: >"$place/.probe") 2>/dev/null; then
        echo "not contained: $place can be written to" >&2
        exit 3
    fi
done

cp "$units"/* /run/systemd/system
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=sundown \
    "$program" --unit=judge.service --show-status=0 --log-target=console
