//! The file systems that the guest needs before anything can be done or told.

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// A file system of the guest.
struct Mount {
    kind: &'static str,
    at: &'static str,
    /// Without it the agent can't work. The others depend on the kernel's configuration.
    needed: bool,
}

/// Parents first.
const MOUNTS: [Mount; 6] = [
    Mount {
        kind: "proc",
        at: "/proc",
        needed: true,
    },
    Mount {
        kind: "sysfs",
        at: "/sys",
        needed: true,
    },
    Mount {
        kind: "devtmpfs",
        at: "/dev",
        needed: true,
    },
    Mount {
        kind: "debugfs",
        at: "/sys/kernel/debug",
        needed: false,
    },
    Mount {
        kind: "configfs",
        at: "/sys/kernel/config",
        needed: false,
    },
    Mount {
        kind: "tmpfs",
        at: "/tmp",
        needed: false,
    },
];

/// A file system that could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("failed to mount {kind} on {at}: {why}")]
pub struct MountError {
    kind: &'static str,
    at: &'static str,
    why: Errno,
}

/// Mounts all; what failed and matters comes back.
pub fn mount_all() -> Vec<MountError> {
    MOUNTS.iter().filter_map(|one| one.mount().err()).collect()
}

impl Mount {
    fn mount(&self) -> Result<(), MountError> {
        // In sysfs the mount points are the kernel's and mkdir is refused; a missing one then
        // fails the mount, which tells.
        let _ = mkdir(self.at, Mode::from_raw_mode(0o755));
        let options: Option<&std::ffi::CStr> = None;
        match mount(self.kind, self.at, self.kind, MountFlags::empty(), options) {
            // BUSY: the kernel did it (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            // The kernel was built without it.
            Err(Errno::NODEV | Errno::NOENT) if !self.needed => Ok(()),
            Err(why) => Err(MountError {
                kind: self.kind,
                at: self.at,
                why,
            }),
        }
    }
}
