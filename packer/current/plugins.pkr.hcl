# Packer 1.7 and later load the QEMU builder as a plugin; Debian's 1.6.6 has it compiled in and does not know this block.
packer {
  required_plugins {
    qemu = {
      version = ">= 1.0.0"
      source  = "github.com/hashicorp/qemu"
    }
  }
}
