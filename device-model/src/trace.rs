//! The trace: JSON lines of what the device did, in a file.
//!
//! Records gather in memory while a round of work lasts and go out in one write at its end,
//! after the guest has its answers: they cost a request no time, and a device that is killed
//! loses no record of what the guest had seen before its last round.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dk_control::Record;

use crate::error::Error;

/// Bytes that are written out at once.
const FULL: usize = 64 * 1024;

/// A trace file, or nothing.
#[derive(Debug, Default)]
pub struct Trace {
    file: Option<(File, PathBuf)>,
    buffer: Vec<u8>,
    lost: Option<Error>,
}

impl Trace {
    /// Appends to a file, beginning with a header. `None` traces nothing.
    ///
    /// # Errors
    /// The file can't be opened or written.
    pub fn open(path: Option<&Path>, now: u64) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let mut file = file.map_err(Error::file("open the trace", path))?;
        let torn = ends_torn(&mut file).map_err(Error::file("read the trace", path))?;
        let mut trace = Self::default();
        trace.file = Some((file, path.to_owned()));
        if torn {
            trace.buffer.push(b'\n');
        }
        trace.record(&Record::Header {
            version: dk_control::VERSION,
            ns: now,
        });
        trace.flush();
        match trace.lost.take() {
            Some(error) => Err(error),
            None => Ok(trace),
        }
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record) {
        if self.file.is_none() {
            return;
        }
        // A Vec takes every write, and a record has no map with odd keys.
        if serde_json::to_writer(&mut self.buffer, record).is_ok() {
            self.buffer.push(b'\n');
        }
        if self.buffer.len() >= FULL {
            self.flush();
        }
    }

    /// Writes out what is in memory. A file that takes no more ends the trace, not the device.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if let Some((file, path)) = &mut self.file
            && let Err(error) = file.write_all(&self.buffer)
        {
            self.lost = Some(Error::file("write the trace, which ends here,", path)(
                error,
            ));
            self.file = None;
        }
        self.buffer.clear();
    }

    /// Why the trace ended early; told once.
    pub fn take_loss(&mut self) -> Option<Error> {
        self.lost.take()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether a device that was killed left half a line at the end.
fn ends_torn(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
