variable "packages" {
  type = string
}

variable "port" {
  type = string
}

variable "suite" {
  type = string
}

variable "accelerator" {
  type = string
}

source "qemu" "image" {
  iso_url          = "/work/plain.qcow2"
  iso_checksum     = "none"
  disk_image       = true
  format           = "qcow2"
  use_backing_file = false
  skip_resize_disk = true
  skip_compaction  = true
  disk_compression = false
  output_directory = "/work/out"
  vm_name          = "disk.qcow2"
  headless         = true
  disable_vnc      = true

  # "0s" would mean the default of 10 s.
  boot_wait = "1ms"

  ssh_username         = "root"
  ssh_private_key_file = "/work/key"
  ssh_timeout          = "20m"
  shutdown_command     = "systemctl poweroff"
  shutdown_timeout     = "5m"

  qemuargs = [
    ["-display", "none"],
    ["-vnc", "none"],
    ["-monitor", "none"],
    ["-machine", "type=pc"],
    ["-accel", var.accelerator == "kvm" ? "kvm" : "tcg,thread=multi"],
    ["-cpu", var.accelerator == "kvm" ? "host" : "max,-la57"],
    ["-smp", "2"],
    ["-m", "2048M"],
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
    ["-device", "virtio-net,netdev=user.0"],
    ["-device", "virtio-rng-pci"],
    ["-drive", "file=/work/out/disk.qcow2,if=virtio,format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap"],
    ["-drive", "file=/work/seed.iso,if=virtio,format=raw,readonly=on"],
    ["-serial", "file:/work/console.log"],
  ]
}

build {
  sources = ["source.qemu.image"]

  provisioner "shell" {
    inline = ["mkdir /run/given"]
  }

  provisioner "file" {
    sources     = ["/work/recipe/skeleton", "/work/recipe/provision", "/work/extra", "/work/key.gpg"]
    destination = "/run/given/"
  }

  provisioner "shell" {
    script = "/work/recipe/install"
    environment_vars = [
      "DEBIAN_FRONTEND=noninteractive",
      "HOST=10.0.2.2",
      "URL=http://10.0.2.2:${var.port}",
      "WHEELS=http://10.0.2.2:${var.port}/wheels",
      "SUITE=${var.suite}",
      "PACKAGES=${var.packages}",
    ]
  }
}
