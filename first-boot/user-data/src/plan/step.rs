//! The things that can be done to a machine.
//!
//! Knows values only. Refuses to know how they are done, or from which format they came. Invariant:
//! a step leaves no meaningful choice to whoever carries it out.
//!
//! Documentation: useradd(8), fstab(5), crypt(5), and for partitions and files Ignition's specification,
//! <https://coreos.github.io/ignition/configuration-v3_5/>.

use crate::secret::Secret;

/// The image's own user.
pub const DEFAULT_USER: &str = "core";

/// One effect.
// One list for all formats, so that the guard, the printed plan and the machine know each effect once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanStep {
    /// Adds lines to `/etc/fstab` and starts what they mount.
    AddMounts(Vec<MountStep>),
    /// Adds keys to a user's `authorized_keys`; those already there stay.
    AuthorizeKeys {
        /// Whose.
        user: String,
        /// The lines.
        keys: Vec<String>,
    },
    /// Halts, powers off or reboots once the rest is done.
    ChangePower(PowerStep),
    /// Makes a group, or adds members to one that exists.
    CreateGroup(GroupStep),
    /// Makes a user, or changes what may be changed of one that exists.
    CreateUser(UserStep),
    /// Asks sshd whether it would start with the files as they are now, and takes back what this run
    /// wrote below /etc/ssh if it would not.
    GuardAccess,
    /// Fetches public keys and adds them to a user's `authorized_keys`.
    ImportKeys {
        /// Whose.
        user: String,
        /// Where they are.
        from: KeySource,
    },
    /// Starts, stops or restarts a unit without waiting for it.
    CommandUnit {
        /// The unit.
        name: String,
        /// What is done.
        verb: UnitVerb,
    },
    /// Makes a partition table as it is asked for, entry by entry.
    EditPartitions(Partitions),
    /// Enables or disables a unit.
    EnableUnit {
        /// The unit.
        name: String,
        /// `false` to disable.
        enable: bool,
        /// Until the next boot only.
        runtime: bool,
    },
    /// Makes a directory and its parents.
    MakeDirectory(DirectoryStep),
    /// Makes a file system on a device that has none, or on any if `overwrite`.
    MakeFilesystem(FilesystemStep),
    /// Makes a symbolic or hard link.
    MakeLink(LinkStep),
    /// Makes and uses a swap file.
    MakeSwap {
        /// Its path.
        path: String,
        /// Its size.
        size: SwapSize,
    },
    /// Makes sure that a unit cannot be started, or that it can.
    MaskUnit {
        /// The unit.
        name: String,
        /// `false` to lift a mask.
        mask: bool,
        /// Until the next boot only.
        runtime: bool,
    },
    /// Sets variables in a file of `NAME=value` lines and leaves its other lines as they are.
    MergeEnvironment {
        /// The file.
        path: String,
        /// Read instead when the file is not there.
        template: Option<String>,
        /// Names and values.
        variables: Vec<(String, Secret<String>)>,
    },
    /// Divides a disk.
    PartitionDisk(PartitioningStep),
    /// Sends facts of this machine to an address.
    PhoneHome(PhoneHome),
    /// Puts a file in its place by Ignition's rules: what is not given stays as it is there.
    PlaceFile(PlacedFile),
    /// Makes the host keys that are missing; puts given ones in place.
    PrepareHostKeys(HostKeys),
    /// Reads changed units anew.
    ReloadUnits,
    /// Applies changed network configuration.
    RestartNetwork,
    /// Runs a script.
    RunScript(ScriptStep),
    /// Makes the names in `/etc/hosts` follow the host name.
    SetHosts {
        /// The fully qualified name, if any.
        fqdn: Option<String>,
        /// The short name; the machine's own if `None`.
        hostname: Option<String>,
        /// What else the file says.
        style: HostsStyle,
    },
    /// Names the machine.
    SetHostname(String),
    /// Lets in whom the platform lets in, and nobody whom it does no longer: a file of its own is replaced.
    SetPlatformKeys {
        /// As whom.
        user: String,
        /// The lines.
        keys: Vec<String>,
    },
    /// Sets a password.
    SetPassword {
        /// Whose.
        user: String,
        /// The password.
        password: Password,
        /// Whether it must be changed at the next login.
        expire: bool,
    },
    /// Links `/etc/localtime`.
    SetTimezone(String),
    /// Shows a line on the console.
    ShowMessage(String),
    /// Changes which certificate authorities are trusted.
    TrustCertificates {
        /// PEM blocks.
        trusted: Vec<String>,
        /// Whether the image's own ones are distrusted.
        remove_defaults: bool,
    },
    /// Writes a drop-in of a unit.
    WriteDropIn {
        /// The unit.
        unit: String,
        /// The drop-in's file name.
        name: String,
        /// Its content.
        content: Secret<String>,
        /// Under /run instead of /etc.
        runtime: bool,
    },
    /// Writes a file.
    WriteFile(FileStep),
    /// Writes a unit.
    WriteUnit {
        /// The unit.
        name: String,
        /// Its content.
        content: Secret<String>,
        /// Under /run instead of /etc.
        runtime: bool,
    },
}

impl PlanStep {
    /// Where a step puts something that its author names by its path, whichever format asks for it.
    #[must_use]
    pub fn written_path(&self) -> Option<&str> {
        match self {
            Self::MakeDirectory(directory) => Some(&directory.path),
            Self::MakeLink(link) => Some(&link.path),
            Self::PlaceFile(file) => Some(&file.path),
            Self::WriteFile(file) => Some(&file.path),
            _ => None,
        }
    }
}

/// A user or group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountRef {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// Who owns a file; what is `None` is root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOwner {
    /// The user.
    pub user: Option<AccountRef>,
    /// The group.
    pub group: Option<AccountRef>,
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingFile {
    /// The content is added to its end, unless it ends so already.
    Append,
    /// It is left, and the step fails.
    Refuse,
    /// It is replaced.
    Replace,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStep {
    /// Absolute, without `..`.
    pub path: String,
    /// What it holds.
    pub content: FileContent,
    /// Permission bits, setuid, setgid and sticky included; `None` keeps those of a file that is there.
    pub mode: Option<u32>,
    /// Who owns it and the parents that must be made for it; what is `None` stays as it is on a file
    /// that is there.
    pub owner: FileOwner,
    /// What happens to one that is there.
    pub existing: ExistingFile,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// They are fetched.
    Fetched(FetchRequest),
    /// They are here.
    Inline(Secret<Vec<u8>>),
}

/// Bytes to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// http or https.
    pub url: String,
    /// Request headers.
    pub headers: Vec<(String, Secret<String>)>,
    /// `sha256-…` or `sha512-…` in hexadecimal digits, checked before anything is written.
    pub hash: Option<String>,
    /// Whether the bytes are gzip.
    pub gzip: bool,
    /// Written when they cannot be fetched.
    pub fallback: Option<Secret<Vec<u8>>>,
    /// How long the server may take.
    pub timeouts: Timeouts,
}

/// How long a server may take, in seconds; what is `None` is as long as usual, and 0 as long as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Until its answer begins.
    pub headers: Option<u64>,
    /// Until all of it is here, further tries included.
    pub total: Option<u64>,
}

/// A file as Ignition means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// Absolute, without `..`.
    pub path: String,
    /// What it holds; `None` for what is there, or nothing.
    pub contents: Option<FileContent>,
    /// What is added to its end, in this order.
    pub append: Vec<FileContent>,
    /// Permission bits; `None` for those that are there, or 0644.
    pub mode: Option<u32>,
    /// Who owns it; what is `None` stays as it is there, or is root.
    pub owner: FileOwner,
    /// Whether what is there in its place is removed first.
    pub overwrite: bool,
}

impl PlacedFile {
    /// All that it is known to hold; `None` if something must be fetched first.
    #[must_use]
    pub fn known_content(&self) -> Option<Vec<u8>> {
        let mut known = Vec::new();
        for content in self.contents.iter().chain(&self.append) {
            match content {
                FileContent::Fetched(_) => return None,
                FileContent::Inline(bytes) => known.extend_from_slice(bytes.reveal()),
            }
        }
        Some(known)
    }
}

/// A directory to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryStep {
    /// Absolute, without `..`.
    pub path: String,
    /// Permission bits; `None` for those of one that is there, or 0755.
    pub mode: Option<u32>,
    /// Who owns it; what is `None` stays as it is there, or is root.
    pub owner: FileOwner,
    /// Whether what is there in its place is removed first.
    pub overwrite: bool,
}

/// A link to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStep {
    /// Where.
    pub path: String,
    /// To what.
    pub target: String,
    /// A hard link instead of a symbolic one.
    pub hard: bool,
    /// Who owns it.
    pub owner: FileOwner,
    /// Whether what is there in its place is removed first.
    pub overwrite: bool,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStep {
    /// Its name.
    pub name: String,
    /// Its number, if it matters.
    pub gid: Option<u32>,
    /// Of the system's range.
    pub system: bool,
    /// Who is added.
    pub members: Vec<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of useradd, all independent")]
pub struct UserStep {
    /// Login name.
    pub name: String,
    /// Number, if it matters.
    pub uid: Option<u32>,
    /// Full name.
    pub gecos: Option<String>,
    /// Home directory; useradd's default if `None`.
    pub home: Option<String>,
    /// Whether no home directory is made.
    pub no_create_home: bool,
    /// Name or number of the primary group.
    pub primary_group: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Whether no group of the user's own name is made.
    pub no_user_group: bool,
    /// Whether lastlog and faillog are left alone.
    pub no_log_init: bool,
    /// Of the system's range.
    pub system: bool,
    /// Login shell; useradd's default if `None`.
    pub shell: Option<String>,
    /// Password to set.
    pub password: Option<Password>,
    /// Whether the password is locked (`Some(true)`) or unlocked.
    pub lock: Option<bool>,
    /// Date of expiry, YYYY-MM-DD.
    pub expires: Option<String>,
    /// Days after which an expired password disables the account.
    pub inactive: Option<u32>,
    /// Lines for sudoers, without the user's name.
    pub sudo: Vec<String>,
}

/// A password.
// Plain text is hashed where it is used: a salt is random, and the same document must make the same plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// As crypt(3) made it.
    Hash(Secret<String>),
    /// In plain text.
    Plain(Secret<String>),
    /// One is made up and shown on the console.
    Random,
}

/// Where public keys are fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The keys of a GitHub account.
    GitHub(String),
    /// The keys of a Launchpad account.
    Launchpad(String),
    /// JSON in GitHub's shape at an address.
    Url(String),
}

/// The host keys of sshd.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostKeys {
    /// Removes those that are there, which a clone got with its disk.
    pub renew: bool,
    /// `ed25519`, `ecdsa`, `rsa`: made if missing.
    pub types: Vec<String>,
    /// File names below /etc/ssh and what they hold.
    pub given: Vec<(String, Secret<String>)>,
}

/// What a unit is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitVerb {
    /// Reload, or restart if it cannot.
    ReloadOrRestart,
    /// Reload, or restart if it cannot and runs.
    ReloadOrTryRestart,
    /// Reload.
    Reload,
    /// Restart.
    Restart,
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Restart if it runs.
    TryRestart,
}

impl UnitVerb {
    /// All of them.
    // coreos-cloudinit's seven commands.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Reload,
        Self::TryRestart,
        Self::ReloadOrRestart,
        Self::ReloadOrTryRestart,
    ];

    /// systemctl's word, which is CoreOS's too.
    #[must_use]
    pub fn verb_word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::ReloadOrRestart => "reload-or-restart",
            Self::ReloadOrTryRestart => "reload-or-try-restart",
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::TryRestart => "try-restart",
        }
    }
}

/// A script to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptStep {
    /// Names the file and the unit.
    pub name: String,
    /// The script; its first line says what runs it.
    pub body: Secret<Vec<u8>>,
    /// Whether the rest of the boot waits for it, and how many seconds at most.
    pub wait: Option<u32>,
}

/// What `/etc/hosts` holds besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostsStyle {
    /// The usual names of this machine and of IPv6.
    Full,
    /// What is there stays; only this machine's line is set.
    Localhost,
}

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountStep {
    /// The six fields, not yet escaped.
    pub fields: [String; 6],
}

/// How large a swap file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapSize {
    /// As large as the memory suggests, at most so many bytes.
    Automatic {
        /// The bound.
        most: Option<u64>,
    },
    /// So many bytes.
    Bytes(u64),
}

/// A file system to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesystemStep {
    /// The device or partition.
    pub device: String,
    /// `ext4`, `vfat`, `swap`, …
    pub format: String,
    /// Its label.
    pub label: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Whether one that is there is replaced.
    pub overwrite: bool,
    /// Further arguments of mkfs.
    pub options: Vec<String>,
}

/// A partition table to be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// The disk.
    pub device: String,
    /// Whether the table that is there is forgotten first.
    pub wipe_table: bool,
    /// What must be in it, as its author wrote it.
    pub wanted: Vec<WantedPartition>,
}

/// A partition that must, or must not, be in a table. What is `None` need not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPartition {
    /// From 1; 0 for the next free one.
    pub number: u32,
    /// Its name.
    pub label: Option<String>,
    /// Where it begins; 0 for the start of the largest gap.
    pub start_mib: Option<u64>,
    /// How large it is; 0 for all up to the next one.
    pub size_mib: Option<u64>,
    /// Its type, in capitals.
    pub type_guid: Option<String>,
    /// Its own GUID, in capitals.
    pub guid: Option<String>,
    /// What may be done with one that is there.
    pub rule: PartitionRule,
}

/// What is done with an entry of a table that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionRule {
    /// It is removed.
    Absent,
    /// It may not be there.
    Forbidden,
    /// It must match.
    Kept,
    /// It is replaced unless it matches.
    Replaced,
    /// It gets another size if all else matches.
    Resized {
        /// Whether it is replaced if more than its size differs.
        replace: bool,
    },
}

impl PartitionRule {
    /// Whether the entry must not be there in the end.
    #[must_use]
    pub fn is_removal(self) -> bool {
        matches!(self, Self::Absent | Self::Forbidden)
    }
}

/// How a disk is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitioningStep {
    /// The disk.
    pub device: String,
    /// Whether a table that is there is replaced.
    pub overwrite: bool,
    /// The partitions, in order.
    pub partitions: Vec<PartitionStep>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStep {
    /// Its share of the disk or its size.
    pub size: PartitionSize,
    /// Its type, a GUID.
    pub type_guid: String,
    /// Its label.
    pub label: Option<String>,
}

/// How large a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionSize {
    /// So many MiB.
    MiB(u64),
    /// So many hundredths of the disk.
    Percent(u8),
    /// What is left.
    Rest,
}

/// What a machine tells an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneHome {
    /// The address; `$INSTANCE_ID` stands for the instance's.
    pub url: String,
    /// `instance_id`, `hostname`, `fqdn`, `pub_key_ed25519`, …
    pub post: Vec<String>,
    /// How often it is tried.
    pub tries: u32,
}

/// How the machine ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerStep {
    /// `poweroff`, `reboot` or `halt`.
    pub mode: &'static str,
    /// In so many minutes; at once if 0.
    pub delay_minutes: u32,
    /// Said to who is logged in.
    pub message: Option<String>,
    /// A command; only if it succeeds.
    pub condition: Option<Vec<String>>,
}
