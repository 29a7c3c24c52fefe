# A container that foundry/machine/build_container.py has booted from the copy of the base. Packer runs in its network
# namespace, where there is a loopback and nothing else.

source "null" "golden" {
  communicator         = "ssh"
  ssh_host             = "127.0.0.1"
  ssh_username         = "root"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = var.boot_timeout
}
