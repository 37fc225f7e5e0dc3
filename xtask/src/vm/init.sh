#!/bin/busybox sh
# The first process of a test machine: runs the live tests, whose output goes to the second serial line, and ends the
# machine. What it is to run says the kernel's command line, whose words the kernel puts into its environment.
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t securityfs none /sys/kernel/security
# No file system of its own: the repository may lie below it.
/bin/busybox chmod 1777 /tmp
/bin/busybox mkdir -p /dev/shm /dev/hugepages
/bin/busybox mount -t tmpfs none /dev/shm
if [ "$LEAKPROBE_CGROUPS" = 1 ]; then
    /bin/busybox mount -t tmpfs none /sys/fs/cgroup
    /bin/busybox mkdir /sys/fs/cgroup/memory
    /bin/busybox mount -t cgroup -o memory none /sys/fs/cgroup/memory
else
    /bin/busybox mount -t cgroup2 none /sys/fs/cgroup
fi
/bin/busybox ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_LIB_BACKTRACE=0 LEAKPROBE_PREBUILT=1
cd "$LEAKPROBE_REPOSITORY" || /bin/busybox poweroff -f
{
    # Commas stand for spaces, which end a word of the command line.
    "$LEAKPROBE_TESTS" --test-threads=1 --show-output $(echo "$LEAKPROBE_FILTER" | /bin/busybox tr , ' ') 2>&1
    echo "the tests ended with code $?"
} >/dev/ttyS1 </dev/null
/bin/busybox sync
/bin/busybox poweroff -f
