#!/usr/bin/env bash
# A board on a shelf, as a virtual machine: Debian with systemd, its kernel's own camera, a memory card that forgets, and no network.
# edge-runner is installed from the wheelhouse, and runs; its clock jumps by years; its power is cut at random moments, and each time it
# has to be there again by itself. Needs Debian on x86_64 and root, and QEMU and mmdebstrap, which it installs.
#   --cuts 3   how often
#   --seed 1   when, and what becomes of what the card had not written yet
set -Eeuo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$ROOT/scripts/machine.sh"
CARD_MB=3000
BOARD_MB=1024
BUNDLE="$ROOT/examples/digits/models/digits"
# Getty, and what has nothing to do on a board without a network or a disk of several parts: they cost a slow machine its start.
IDLE="getty@tty1 serial-getty@ttyS0 ssh apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap fstrim.timer
    dpkg-db-backup.timer systemd-logind kmod-static-nodes modprobe@configfs modprobe@fuse modprobe@efi_pstore modprobe@drm"
PATH="$PATH:/usr/sbin:/sbin" # where Debian has mke2fs and e2fsck

# make_card: Debian, its kernel's modules, the wheelhouse, two releases of a model, and what is checked, as the image of a card.
make_card() {
    local card="$WORK/card.d" tree unit
    tree=$(PYTHONPATH="$ROOT/tests" "$HOST" -c 'from lab.container import tree; print(tree())') || die "Debian cannot be unpacked"
    cp -a "$tree" "$card"
    (cd "$card/usr" && "$BUSYBOX" cpio -idm 'lib/modules/*' 2>/dev/null <"$MACHINE/system.cpio")
    mkdir -p "$card/etc/modules-load.d" "$card/etc/modprobe.d" "$card/checks"
    echo "/dev/vda / ext4 defaults,noatime 0 1" >"$card/etc/fstab"
    echo vivid >"$card/etc/modules-load.d/camera.conf"
    echo "options vivid n_devs=1 node_types=0x1" >"$card/etc/modprobe.d/camera.conf"
    cp "$ROOT"/tests/system/board_{checks,trial}.py "$card/checks"
    cp -r "$HOUSE" "$card/checks/wheelhouse"
    "$HOST" "$ROOT/tests/lab/releases.py" "$BUNDLE" "$card/checks"
    for unit in $IDLE; do
        case $unit in *.timer) ;; *) unit=$unit.service ;; esac
        ln -sf /dev/null "$card/etc/systemd/system/$unit"
    done
    cat >"$card/etc/systemd/system/checks.service" <<'EOF2'
[Unit]
Description=What is checked
[Service]
ExecStart=/bin/sh -c 'exec /usr/bin/python3 /checks/board_checks.py $(grep -Eo "board.phase=[a-z]+" /proc/cmdline | cut -d = -f 2)'
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
EOF2
    ln -s ../checks.service "$card/etc/systemd/system/multi-user.target.wants/checks.service"
    quietly "the card" mke2fs -q -t ext4 -d "$card" "$WORK/card.img" ${CARD_MB}M
    rm -rf "$card"
}

# make_initrd: what finds the card, and goes on from it.
make_initrd() {
    local first="$WORK/first"
    mkdir -p "$first"/{bin,dev,proc,sys,root}
    cp "$BUSYBOX" "$first/bin/busybox"
    ln -s busybox "$first/bin/sh"
    (cd "$first" && "$BUSYBOX" cpio -idm 'lib/modules/*' 2>/dev/null <"$MACHINE/system.cpio")
    cat >"$first/init" <<'EOF2'
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in virtio-pci virtio-blk crc32c_generic ext4; do modprobe $module; done
mount -t ext4 -o ro /dev/vda /root
umount /proc
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
EOF2
    chmod 755 "$first/init"
    archive "$first" "$WORK/initrd"
}

read_cuts "scripts/test_board.sh [--cuts N] [--seed N]" "$@"
[ "$(id -u)" = 0 ] || cannot "the virtual board needs root, for its files' owners"
need_machine
HOUSE="$(dirname "$CACHE")/wheelhouse/x86_64-py3.11"
"$ROOT/scripts/make_wheelhouse.sh" --platform x86_64 --python 3.11 --output "$HOUSE"
say "making the board's card …"
make_initrd
make_card
"$HOST" "$ROOT/tests/lab/shelf.py" --machine "$MACHINE" --work "$WORK" --console "$CACHE/board.log" \
    --accelerator $ACCELERATOR --memory $BOARD_MB "${options[@]}" ||
    die "board: not all is well; the consoles are $CACHE/board.log*"
