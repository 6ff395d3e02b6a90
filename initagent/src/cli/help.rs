//! The help of the program and of each verb, each with an example.
//!
//! Knows words only. Refuses to be read by programs.

pub(super) const PROGRAM: &str = "\
initagent: opens the verified root, configures the machine on first boot, and keeps its slots

Usage: initagent VERB [OPTIONS]

Verbs for people:
  apply           do what a cloud-config asks for, now
  boot-loader     compare the boot loaders of the disk with the release's, or repair them
  cluster         make a cluster's secret, show what this machine is in its cluster
  install         write this system, or another one, to a disk
  plan            say what a cloud-config would do
  provision       show or set whether this machine may be configured again
  slots           show or change which slot boots
  state           show what is wrong with what this machine keeps, or make it anew
  status          say what came of the first boot
  update          show or change what the machine does about new releases
  validate        find the mistakes in a cloud-config

Verbs that scripts of user-data run:
  cloud-init-per  run a command once, once an instance, or always

Verbs that the boot runs:
  await-logins    wait until the first boot has brought keys and users
  boot-complete   mark the running slot good, now that the boot is complete
  boot-settled    give the running slot all its tries, now that it has stayed up
  first-boot      find out what this machine is to be, and make it so
  host-keys       make the SSH host keys that are missing
  network-cards   load the drivers of network cards, and tell udev of them

Options:
  -h, --help      this text; after a verb, the verb's
  -V, --version   the version of this program

Exit codes: 0 done, 1 failed, 2 done in part, 64 not understood.

Examples:
  initagent validate user-data.yaml
  initagent status
  initagent slots activate B
  coreos-cloudinit --from-file user-data.yaml   # the same program: `apply`
";

pub(super) const INSTALL: &str = "\
Usage: initagent install DISK [OPTIONS]

Writes a system to a disk of this machine: the one that runs, or that of an
image. DISK is a device, or says what the disk is:
  serial=S3Z8*  wwn=eui.0025*  model=*SSD*  transport=usb  size>=20 GB
  smallest  largest  'smallest >= 20 GB and transport=nvme'
The disks are shown, with the reason for each. Nothing is written while two
disks match, or while the one that does is in use.

The disk does not start before all of it was read back and its signatures
hold. Whatever interrupts it, run it again.

Options:
      --from IMAGE      a file, a device or a URL; without it, the system that runs
      --key FILE        trust this public key, and not those of this machine; repeat it for more
      --sha256 HEX      what the file of the image must have
      --user-data FILE  configuration for the first boot from that disk
      --keep STATE      keep the partition STATE of an earlier installation
      --wipe            write zeros over the whole disk if it cannot discard
      --dry-run         show the disks and which one is meant
  -y, --yes             do not ask
      --json            print for programs
  -h, --help            this text

Examples:
  initagent install 'smallest >= 20 GB' --user-data /root/user-data.yaml
  initagent install /dev/nvme0n1 --from https://example.com/disk.raw.zst --yes
";

pub(super) const APPLY: &str = "\
Usage: initagent apply --from-file FILE [--json]
       initagent apply --force [--json]

Does what a file of user-data asks for, at once, or does again what the platform
of this machine asked for at its first boot. What is as it should be already is
left alone.

Options:
      --force            configure this instance again
      --from-file FILE   a cloud-config, script or archive; nothing is asked of the platform
      --json             print for programs
  -h, --help             this text

Exit codes: 0 all done, 1 nothing could be read or fetched, 2 some items failed.

Examples:
  initagent apply --from-file more-users.yaml
  initagent apply --force
";

pub(super) const AWAIT_LOGINS: &str = "\
Usage: initagent await-logins

Waits until the first boot has brought the keys, users and settings of sshd, but
not longer than half a minute. Started by catamaran-logins.service before sshd,
on a machine that was not configured yet.

Example:
  initagent await-logins   # ends at once on a machine that lets people in
";

pub(super) const BOOT_COMPLETE: &str = "\
Usage: initagent boot-complete

Marks the slot that runs good and gives it all its tries again, unless its last
run crashed before it had settled. Started by catamaran-boot-complete.service when
systemd reaches boot-complete.target; writes nothing that the slot table says
already.

Example:
  systemctl status catamaran-boot-complete.service
";

pub(super) const BOOT_LOADER: &str = "\
Usage: initagent boot-loader [check|repair]

Compares shim, GRUB, the MOK manager and the slot selector of the EFI partition, and
GRUB for BIOS, with those that the running release brings. `repair` replaces what is
damaged, and what is older than the newest release that this machine has proven. It
never brings back a lower SBAT level. The boot runs it once the slot has stayed up.

Options:
  -h, --help   this text

Exit codes: 0 nothing to be done, or done, 1 something is to be replaced, or not done.

Examples:
  sudo initagent boot-loader check
";

pub(super) const BOOT_SETTLED: &str = "\
Usage: initagent boot-settled

Gives the slot that runs all its tries, after a boot that was complete. Started
when the machine has been up for ten minutes, or shuts down in order. A slot that
crashes sooner, again and again, uses up its tries and gives way to the other.

Example:
  systemctl list-timers catamaran-boot-settled.timer
";

pub(super) const CLOUD_INIT_PER: &str = "\
Usage: cloud-init-per FREQUENCY NAME COMMAND [ARGUMENTS]
       initagent cloud-init-per FREQUENCY NAME COMMAND [ARGUMENTS]

Runs a command, unless one of the same NAME ran as often as FREQUENCY says.
A command that failed counts as run; one that could not be started does not.

Frequencies:
  once       once on this disk, whatever instance it is
  instance   once on this instance
  always     at each call; also: boot

Exit codes: that of the command, 0 if it ran before, 1 not started or not
remembered, 64 not understood.

Example:
  cloud-init-per once format-data mkfs.ext4 -L data /dev/vdb   # in `bootcmd`
";

pub(super) const FIRST_BOOT: &str = "\
Usage: initagent first-boot [--json]

Finds the platform that this machine runs on, asks it for user-data, and does
what that says: all of it once per instance, and at each boot what does not last.
Started by catamaran-first-boot.service; nothing waits for it to end.

Options:
      --json   print for programs
  -h, --help   this text

Exit codes: 0 all done, 1 nothing could be read or fetched, 2 some items failed.

Example:
  journalctl -u catamaran-first-boot.service
";

pub(super) const HOST_KEYS: &str = "\
Usage: initagent host-keys

Makes the ed25519 and ecdsa host keys of this machine in /etc/ssh if they are
missing or broken. Started by catamaran-host-keys.service before sshd.

Example:
  rm /etc/ssh/ssh_host_*; initagent host-keys   # new keys for a cloned machine
";

pub(super) const NETWORK_CARDS: &str = "\
Usage: initagent network-cards

Loads the drivers of the network cards of this machine and, as soon as udev
listens, tells it of the cards. Started by the initramfs, to run beside systemd.

Example:
  initagent network-cards   # changes nothing on a machine that is up
";

pub(super) const PLAN: &str = "\
Usage: initagent plan FILE [--full]

Prints what a file of user-data would do, in order, without doing it, and then
what is wrong with it. Works on any machine.

Options:
      --full   with the contents of files, units and scripts
  -h, --help   this text

Exit codes: 0 nothing is wrong, 1 errors, 2 warnings only.

Examples:
  initagent plan user-data.yaml
  curl -s https://example.com/user-data | initagent plan -
";

pub(super) const PROVISION: &str = "\
Usage: initagent provision [show | locked | once | always]

Shows what configured this machine, and whether it may be configured again; or
sets that, from the next boot on. The file is /etc/catamaran/provision.

  locked   never, not even when its platform says that it is another instance
  once     once an instance, by the source that configured it first (the default);
           another volume counts in a copy of this disk only, in another machine
  always   by any source, if the one that configured it is gone

`initagent apply --force` configures it again now, as `always` would.

Options:
  -h, --help   this text

Examples:
  initagent provision
  sudo initagent provision locked
";

pub(super) const SLOTS: &str = "\
Usage: initagent slots [CHANGE [SLOT]] [--json] [--abstate PATH]
       initagent slots lower-floor VERSION

Shows which slot boots first, which runs, and how often each may still be tried.

Changes, each one sector in each of the two copies of the table:
  activate SLOT     boot this slot next, with all its tries
  disarm SLOT       never boot this slot: it is about to be overwritten
  mark-bad SLOT     never boot this slot again
  mark-good [SLOT]  the running slot has proven itself

A machine refuses a slot with an older release than it has marked good, while
the other slot can boot; what it once marked good in a slot may come back there.
  lower-floor VERSION  let this version, and newer ones, boot again

Options:
      --abstate PATH   the partition of the slot table, or an image of it,
                       instead of the one this machine booted with
      --json           print for programs
  -h, --help           this text

A slot is good (proven), unproven (boots while it has tries), demoted (good, but
its boots failed) or empty.

Examples:
  initagent slots
  initagent slots --json
  initagent slots activate B && systemctl reboot
  initagent slots lower-floor 1.2.0
";

pub(super) const STATE: &str = "\
Usage: initagent state [check] [--json]
       initagent state reset [--yes] [--json]

Shows how this boot found STATE (/var, /home, /root, /opt, /srv and the changes in
/etc), and what is wrong with it now. If it is not in use, e2fsck looks at it.

`reset` loses everything on it: at once if it is not in use, else at the next boot.
The machine is then configured as at its first boot.

Options:
      --json   print for programs
      --yes    do not ask before a reset
  -h, --help   this text

Exit codes: 0 no fault, 1 damaged, or not done, 64 not understood.

Examples:
  sudo initagent state check
  sudo initagent state reset --yes && sudo systemctl reboot
";

pub(super) const STATUS: &str = "\
Usage: initagent status [--wait] [--json]

Says what came of the first boot: every item with its place in the file and why
it failed, if it did. Never a password, a key or the content of a file.

Options:
      --json   print for programs
      --wait   until that of this boot has ended
  -h, --help   this text

Exit codes: 0 all was done, 1 it failed or has not ended yet, 2 some items failed.

Examples:
  initagent status
  cloud-init status --wait && echo ready   # the same program
";

pub(super) const UPDATE: &str = "\
Usage: initagent update [status|history] [--json]
       initagent update check
       initagent update install [VERSION|FOLDER|FILE]
       initagent update cancel|rollback
       initagent update pin VERSION | unpin | channel NAME

Replaces the system in the slot that does not run, tries it, and comes back when
it is bad. A service does the same by itself, where SERVER is set in
/etc/coreos/update.conf.

For people:
  status           what runs, what is under way, and what failed here (the default)
  check            ask the channel what there is for this machine
  install          install what the channel has, also while it is paused
  install VERSION  install this release of the channel
  install FOLDER   install from a repository on a disk, such as a USB stick
  install FILE     install from the image of a disk or of a slot
  cancel           give up what is under way before it starts
  rollback         go back to the release in the other slot
  pin VERSION      stay at this release, or go to it
  unpin            follow the channel again
  channel NAME     follow another channel
  history          what was done on this machine, and why it failed

For units of the image:
  poll, resume, trial, expire, end-boot, next-root, guard, migrate, serve-bus

Options:
      --json   print status and history for programs
  -h, --help   this text

Exit codes: 0 done, 1 failed, 64 not understood.

Examples:
  initagent update
  sudo initagent update install && sudo systemctl reboot
  sudo initagent update install && sudo systemctl soft-reboot   # where `status` says so
  sudo initagent update install /media/stick
  sudo initagent update rollback && sudo systemctl reboot
";

pub(super) const VALIDATE: &str = "\
Usage: initagent validate FILE... [--json]

Finds everything that a run would complain about, with line and column, without
doing anything. Works on any machine, without a network. A FILE may also be a
folder or an image with a whole seed (user-data, meta-data, network-config). What
a file is for is guessed by its name and content, unless an option says it.

Options:
      --json                  print for programs
      --meta-data FILE        facts of the instance
      --network-config FILE   a network configuration
      --user-data FILE        a cloud-config, script, archive or Ignition
      --vendor-data FILE      the same, of the platform's operator
  -h, --help                  this text

Exit codes: 0 nothing is wrong, 1 errors, 2 warnings only.

Examples:
  initagent validate user-data.yaml
  initagent validate --network-config eth0.yaml
  initagent validate seed.iso
  initagent validate --json *.yaml
";
