#!/usr/bin/env bash
# Cut the power of a virtual machine while it writes: what it had said to be on its card has to be there at the next start, and all else
# whole or gone. Needs Debian on x86_64, and QEMU and mmdebstrap, or root to install them.
#   --cuts 8   how often
#   --seed 1   when, and what becomes of what the card had not written yet
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/machine.sh"
CARD_MB=64
PATH="$PATH:/usr/sbin:/sbin" # where Debian has mke2fs and e2fsck

read_cuts "scripts/test_power.sh [--cuts N] [--seed N]" "$@"

need_machine
begin_load
cp "$ROOT/tests/system/power_checks.py" "$LOAD/checks/"
end_load <<'EOF'
for module in virtio-pci virtio-blk crc32c_generic ext4; do modprobe $module; done
mkdir -p /card
mount -t ext4 /dev/vda /card
/usr/bin/python3.11 /checks/power_checks.py /card $(grep -Eo 'last|calm|eager' /proc/cmdline)
echo "exit code $?"
umount /card
/bin/busybox poweroff -f
EOF
quietly "the card" mke2fs -q -t ext4 "$WORK/card.img" ${CARD_MB}M
"$HOST" "$ROOT/tests/lab/power.py" --machine "$MACHINE" --work "$WORK" --console "$CACHE/power.log" \
    --accelerator $ACCELERATOR --memory $MEMORY_MB "${options[@]}" ||
    die "power: not all is well; the console is in $CACHE/power.log"
quietly "the card's file system, at the end" e2fsck -f -n "$WORK/card.img"
say "power: the card's file system is clean"
