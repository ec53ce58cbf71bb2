//! The events of a run. The live display, events.jsonl and the summary all read these.

use std::time::Duration;

use knobrig_proto::GateReport;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::judge::oracle::Collisions;
use crate::judge::plan::{Program, Shape, Spot};
use crate::schedule::exhaust::Counts;

/// Version of events.jsonl.
pub const VERSION: u32 = 1;

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first.
    RunStarted {
        /// [`VERSION`].
        version: u32,
        /// Target, lifetime and mutant in one phrase.
        title: String,
        /// The seed.
        seed: u64,
    },
    /// A guest starts.
    GuestBooting {
        /// Its number in the run, from 1.
        guest: u64,
    },
    /// Its agent spoke.
    GuestUp {
        /// Its number.
        guest: u64,
        /// Wall time since QEMU's start, in milliseconds.
        boot_ms: u64,
        /// `uname -r`.
        kernel: String,
    },
    /// The kernel reported something before any driver was loaded; the guest is given up.
    GuestUnfit {
        /// Its number.
        guest: u64,
        /// The report's title.
        title: String,
    },
    /// A guest was lost without a report.
    GuestLost {
        /// Its number.
        guest: u64,
        /// How.
        why: String,
    },
    /// The device program died, and the guest that it served is given up.
    DeviceDied {
        /// The guest.
        guest: u64,
        /// How.
        why: String,
    },
    /// The emulator ran code that memory doesn't hold, and the guest is given up.
    EmulatorFault {
        /// The guest.
        guest: u64,
        /// What the kernel said, and why it is no driver's doing.
        why: String,
    },
    /// An episode ended.
    EpisodeEnded {
        /// Its number in the run, from 1.
        episode: u64,
        /// The guest.
        guest: u64,
        /// What it was for.
        shape: Shape,
        /// A gate held somebody in it.
        held: bool,
        /// Wall time, in milliseconds.
        ms: u64,
        /// What teardowns and ops came to.
        #[serde(flatten)]
        collisions: Collisions,
    },
    /// A survey found the points of a program.
    Surveyed {
        /// The episode.
        episode: u64,
        /// What its actors do.
        program: Program,
        /// Those.
        points: Vec<Spot>,
    },
    /// A guest has no function gates: episodes that ask for them run without.
    Ungated {
        /// The episode.
        episode: u64,
        /// Why.
        why: String,
    },
    /// What came of an episode's function gates.
    GatesEnded {
        /// The episode.
        episode: u64,
        /// In its order.
        gates: Vec<GateReport>,
    },
    /// Which shape an episode had, and what that paid.
    Chosen {
        /// The episode.
        episode: u64,
        /// Its shape; a survey is chosen as a placed one.
        shape: Shape,
        /// The chance that it had.
        chance: f64,
        /// What it paid: 1 for a failure that is new, less for an order that is, little for an
        /// overlap.
        paid: f64,
    },
    /// How far an exploration is.
    Explored {
        /// So far.
        #[serde(flatten)]
        counts: Counts,
    },
    /// A failure was met.
    Found {
        /// The finding's number.
        number: usize,
        /// Its title.
        title: String,
        /// Times met, this one included.
        count: u64,
        /// The episode.
        episode: Option<u64>,
    },
    /// The last.
    RunEnded {
        /// The exit code that the run will have.
        exit: u8,
    },
}

/// A line of events.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Since the command's start, in milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Reads the stream.
pub trait Reporter {
    /// Takes an event, `at` after the command's start.
    ///
    /// # Errors
    /// What it keeps can't be written.
    fn event(&mut self, at: Duration, event: &Event) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_version_1_reads_as_written() {
        let line = r#"{"at_ms":5210,"event":"episode-ended","episode":3,"guest":1,"shape":"gated","held":true,"ms":41,"teardowns_ok":1,"teardowns_refused":0,"overlapped":1,"ops":4,"ops_failed":1}"#;
        let stamped: Stamped = serde_json::from_str(line).expect("a line of version 1");
        assert_eq!(serde_json::to_string(&stamped).expect("plain data"), line);
    }
}
