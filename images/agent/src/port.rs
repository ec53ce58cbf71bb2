//! The virtio-serial port: found by its name, read as a stream that never ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the port is looked for while the kernel still probes.
const SEARCH_EVERY: Duration = Duration::from_millis(2);
/// How often a port that nobody is connected to is tried again. The driver's `read` gives 0 then
/// and its `poll` returns at once with `POLLHUP`, so there is nothing to sleep on.
const HOST_EVERY: Duration = Duration::from_millis(10);
/// Where the kernel lists ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// No usable port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// It did not turn up.
    #[error(
        "waited {waited:?} for a virtio-serial port named {name}; ports there: {seen:?}. QEMU \
         needs -device virtserialport,name={name} and the kernel CONFIG_VIRTIO_CONSOLE"
    )]
    Missing {
        /// The name sought.
        name: String,
        /// How long.
        waited: Duration,
        /// The names of the ports that are there.
        seen: Vec<String>,
    },
    /// It is there and can't be opened.
    #[error("failed to open {path}: {why}")]
    Open {
        /// The device node.
        path: PathBuf,
        /// The reason.
        why: io::Error,
    },
}

/// Waits for the port of that name and opens it for both ways.
///
/// # Errors
/// [`PortError`] when it isn't there by the deadline, or can't be opened then.
pub fn open(name: &str, deadline: Duration) -> Result<File, PortError> {
    let begun = Instant::now();
    loop {
        let ports = list();
        let node = ports
            .iter()
            .find(|(_, it)| it == name)
            .map(|(node, _)| node.clone());
        let failure = match node {
            Some(path) => match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(port) => return Ok(port),
                // The node may come after the name; what stays is told at the deadline.
                Err(why) => PortError::Open { path, why },
            },
            None => PortError::Missing {
                name: name.to_owned(),
                waited: begun.elapsed(),
                seen: ports.into_iter().map(|(_, it)| it).collect(),
            },
        };
        if begun.elapsed() >= deadline {
            return Err(failure);
        }
        std::thread::sleep(SEARCH_EVERY);
    }
}

/// Device node and name of each port.
fn list() -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(PORTS) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
            Some((
                PathBuf::from("/dev").join(entry.file_name()),
                name.trim_end().to_owned(),
            ))
        })
        .collect()
}

/// The port's incoming side: an absent host is waited for, never an end of file.
#[derive(Debug)]
pub struct PortReader(
    /// The open port.
    pub File,
);

impl Read for PortReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Ok(0) if !buf.is_empty() => std::thread::sleep(HOST_EVERY),
                other => return other,
            }
        }
    }
}
