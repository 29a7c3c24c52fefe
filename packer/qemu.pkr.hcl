# QEMU with a direct kernel boot. The guest reaches nothing: restrict=on leaves only the forwarded ssh port.
# Nobody reaches QEMU: a VNC server or a monitor would give each user of this host all rights of who runs QEMU.

source "qemu" "golden" {
  iso_url      = var.base
  iso_checksum = "none"
  disk_image   = true
  format       = "raw"

  # Packer 1.6.6 gives qemu-img no backing format, which QEMU 6.1 and later refuse; compression happens outside, with zstd.
  use_backing_file = false
  skip_resize_disk = true
  skip_compaction  = true
  disk_compression = false

  output_directory = var.output
  vm_name          = "disk.raw"
  headless         = true
  disable_vnc      = true

  # "0s" would mean the default of 10 s.
  boot_wait = "1ms"

  communicator         = "ssh"
  ssh_username         = "root"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = var.boot_timeout

  # systemd(1): SIGRTMIN+4 starts poweroff.target, and needs no logind, which the build boot does without.
  shutdown_command     = "kill -s RTMIN+4 1"
  shutdown_timeout     = "3m"

  # Any -drive here replaces all of Packer's own, and so does -vnc: with disable_vnc 1.6.6 types nothing
  # there, but starts a server all the same.
  # With -runas and -chroot QEMU gives up its rights once it has opened its files (foundry/sandbox.py says the same).
  qemuargs = [
    ["-display", "none"],
    ["-vnc", "none"],
    ["-monitor", "none"],
    ["-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny"],
    ["-runas", var.user],
    ["-chroot", var.empty],
    ["-machine", "type=pc"],
    ["-accel", var.accelerator],
    ["-cpu", var.cpu],
    ["-smp", "${var.cpus}"],
    ["-m", "${var.memory}M"],
    ["-kernel", var.kernel],
    ["-initrd", var.initrd],
    ["-append", var.append],
    ["-smbios", "type=11,path=${var.credentials}"],
    ["-netdev", "user,id=user.0,restrict=on,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
    ["-device", "virtio-net,netdev=user.0,romfile="],
    ["-device", "virtio-rng-pci"],
    ["-drive", "file=${var.output}/disk.raw,if=virtio,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap"],
    ["-drive", "file=${var.repository},if=virtio,format=raw,readonly=on"],
    ["-serial", "file:${var.console}"],
  ]
}
