#!/bin/sh
# Builds a small world for a student's code and starts a command in it.
#
#     unshare --mount --pid --net --ipc --fork sandbox.sh ROOT USER HIDDEN PATH... -- COMMAND...
#
# ROOT is an empty folder, USER a number (or "" to stay the same user), HIDDEN a folder that is to be
# empty, and of the machine's files only the PATHs are there, read-only. The new namespaces make
# everything below vanish with the last process in them. sandbox.py calls this.
set -eu
umask 022
PATH=$PATH:/usr/sbin:/sbin
root=$1 user=$2 hidden=$3
shift 3

mount -t tmpfs -o size=1m,mode=755,nosuid,nodev tmpfs "$root"
while [ "$1" != -- ]; do
    mkdir -p "$root$(dirname "$1")"
    if [ -L "$1" ]; then
        [ -L "$root$1" ] || cp -P "$1" "$root$1"
    elif [ -d "$1" ]; then
        mkdir -p "$root$1"
        mount --rbind "$1" "$root$1"
    else
        [ -e "$root$1" ] || : > "$root$1"
        mount --bind "$1" "$root$1"
    fi
    shift
done
shift
if [ -d "$root$hidden" ]; then
    mount -t tmpfs -o size=4k,mode=755 tmpfs "$root$hidden"
fi

# Everything so far becomes read-only, file systems mounted below these paths included.
awk -v root="$root/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo |
    while read -r point; do
        point=$(printf '%b' "$point")
        mount -o remount,bind,ro,nosuid,nodev "$point" 2> /dev/null ||
            mount -o remount,bind,ro,nosuid,nodev,noexec "$point"
    done

mkdir -p "$root/proc" "$root/tmp" "$root/dev/shm" "$root/old"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"

cd "$root"
pivot_root . old
cd /tmp
umount -l /old
mount -o remount,bind,ro /

if [ -n "$user" ]; then
    set -- --reuid="$user" --regid="$user" --clear-groups "$@"
fi
# The options of setpriv end where the command begins, at its first word without dashes.
exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"
