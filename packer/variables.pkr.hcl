# Those with an empty default are the virtual machine's.

variable "base" {
  type        = string
  description = "The base disk (raw) that is copied and booted."
  default     = ""
}

variable "kernel" {
  type        = string
  description = "The base's kernel, booted directly."
  default     = ""
}

variable "initrd" {
  type        = string
  description = "The base's initrd."
  default     = ""
}

variable "append" {
  type        = string
  description = "The kernel command line of the build boot."
  default     = ""
}

variable "repository" {
  type        = string
  description = "A disk image (ISO 9660) that holds the local signed repository."
  default     = ""
}

variable "repository_label" {
  type        = string
  description = "The volume label of the repository's disk image."
}

variable "packages" {
  type        = string
  description = "What to install from the repository, separated by spaces."
}

variable "epoch" {
  type        = string
  description = "The date of all that has no older one, in seconds (SOURCE_DATE_EPOCH)."
}

variable "credentials" {
  type        = string
  description = "A file with an SMBIOS string: the systemd credential that brings this build's ssh keys."
  default     = ""
}

variable "ssh_key" {
  type        = string
  description = "The private key that belongs to it."
}

variable "scripts" {
  type        = string
  description = "The folder of the provisioning scripts."
}

variable "output" {
  type        = string
  description = "The folder to make, with disk.raw in it."
  default     = ""
}

variable "console" {
  type        = string
  description = "The file that the guest's serial console is written to."
  default     = ""
}

variable "user" {
  type        = string
  description = "Whom QEMU runs as once it has opened its files, as UID:GID."
  default     = ""
}

variable "empty" {
  type        = string
  description = "A folder with nothing in it: what QEMU sees of the host's files from then on."
  default     = ""
}

variable "accelerator" {
  type        = string
  description = "QEMU's -accel argument: kvm, or tcg,thread=multi."
  default     = ""
}

variable "cpu" {
  type        = string
  description = "QEMU's -cpu argument."
  default     = ""
}

variable "cpus" {
  type    = number
  default = 2
}

variable "memory" {
  type        = number
  description = "MiB."
  default     = 2048
}

variable "boot_timeout" {
  type        = string
  description = "How long the guest may take until ssh answers, as a Go duration."
  default     = "5m"
}
