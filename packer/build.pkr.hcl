# The golden image: a copy of the base, booted, with the node's packages installed from a local repository, and sealed.

build {
  sources = ["source.qemu.golden", "source.null.golden"]

  provisioner "shell" {
    scripts = [
      "${var.scripts}/install.sh",
      "${var.scripts}/seal.sh",
    ]
    environment_vars = [
      "PACKAGES=${var.packages}",
      "REPOSITORY_LABEL=${var.repository_label}",
      "EPOCH=${var.epoch}",
    ]
    # /run is gone at the next boot, and is mounted noexec.
    execute_command = "{{ .Vars }} sh {{ .Path }}"
    remote_folder   = "/run"
    skip_clean      = true
  }

  # The null builder ends no machine (packer/container.pkr.hcl).
  provisioner "shell" {
    only              = ["null.golden"]
    inline            = ["kill -s RTMIN+4 1"]
    inline_shebang    = "/bin/sh -e"
    remote_folder     = "/run"
    skip_clean        = true
    execute_command   = "sh {{ .Path }}"
    expect_disconnect = true
  }
}
