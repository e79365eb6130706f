#!/bin/busybox sh
# The first and only process that the guest starts. Lines that begin with @@ are read by `cargo xtask kernels`.
/bin/busybox --install -s /bin
export PATH=/host:/bin HOME=/root TMPDIR=/tmp EGRESS_AGENT=/bin/egress-agent EGRESS_EBPF_OBJECT=/egress-ebpf
export EGRESS_PATIENCE=3 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
ln -s /proc/self/fd /dev/fd
ip link set lo up
for module in /modules/*.ko; do
    insmod "$module" || echo "@@warning $module cannot be loaded"
done
echo "@@kernel $(uname -r)"
while IFS='|' read -r program name arguments; do
    echo "@@begin $name"
    # The arguments are words of ours, to be split.
    # shellcheck disable=SC2086
    "/programs/$program" $arguments </dev/null 2>&1
    echo "@@end $?"
done </jobs
dmesg | grep -E 'BUG:|WARNING:|Oops|general protection|refcount_t' | sed 's/^/@@complaint /'
echo "@@finished"
reboot -f
