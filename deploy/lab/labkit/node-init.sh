#!/bin/bash
# PID 1 of a node. Started in the node's own namespaces and control groups by nodes.py, with
#   NODE  its name      KIND  host, scheduler or router      DIR  its directory      LAB  the lab's directory
# Everything started on the node lives below this process's PID namespace: killing it is a power failure.
set -e
mount --make-rprivate /
hostname "$NODE"
mount --bind "$LAB/hosts" /etc/hosts

if [ "$KIND" = host ]; then
  # The control group namespace shows the node's own group as the whole tree.
  umount -l /sys/fs/cgroup 2>/dev/null || true
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  for pair in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
    mount --bind "$DIR/${pair%%:*}" "${pair#*:}"
  done
  mount -t tmpfs -o mode=755 run /run
  mkdir -p /run/libvirt /run/lock /run/cgroup
  mount -t tmpfs srv /srv
  mkdir -p /srv/local /srv/shared
  mount --bind "$DIR/local" /srv/local
  mount --bind "$LAB/shared" /srv/shared
  # The host's own pressure and memory, at the places where every program looks for them.
  for resource in cpu memory io; do
    mount --bind "/sys/fs/cgroup/$resource.pressure" "/proc/pressure/$resource"
  done
  mount --bind "$DIR/meminfo" /proc/meminfo
  # Where memory is accounted by control groups of version 1, show it under the names of version 2.
  if [ ! -e /sys/fs/cgroup/memory.current ]; then
    mkdir /run/cgroup-v1
    mount -t cgroup -o memory memory /run/cgroup-v1
    ln -s /run/cgroup-v1/memory.usage_in_bytes /run/cgroup/memory.current
    ln -s /run/cgroup-v1/memory.limit_in_bytes /run/cgroup/memory.max
  fi
  for file in /sys/fs/cgroup/*; do
    [ -d "$file" ] || ln -sf "$file" /run/cgroup/
  done
fi

set +e
trap : TERM INT HUP
echo ready > "$DIR/ready"
# bash, as PID 1, reaps the orphans of the node
while :; do sleep 3600 & wait $!; done
