//! Where a campaign's episodes come from.

use knobrig_proto::Pass;

use crate::error::Error;
use crate::judge::oracle::Collisions;
use crate::judge::plan::{Plan, Program, Spot};
use crate::judge::record::Record;
use crate::judge::summary::{Explored, Summary};
use crate::report::events::Event;
use crate::report::progress::HowFar;
use crate::target::Chosen;

/// Where a campaign's episodes come from, one after the other.
pub(super) trait Episodes {
    /// The episode to run under this number.
    fn next(&mut self, number: u64) -> Plan;

    /// A guest's kernel can list what was left allocated.
    fn sees_leaks(&mut self) {}

    /// A guest has told what only a guest knows of the target.
    fn looked(&mut self, _whole: &Chosen) {}

    /// What a survey saw; gives the points that are known of the program now.
    fn surveyed(&mut self, _program: &Program, _passes: &[Pass]) -> Vec<Spot> {
        Vec::new()
    }
    /// How the last one went.
    fn went(&mut self, _went: &Went<'_>) {}
    /// What came of the last one: the key of the failure that it showed. Not called for an episode
    /// that was lost with its guest for no fault of the driver; the next then stands for it.
    fn told(&mut self, _shown: Option<&str>) {}
    /// Whether what one episode showed must be known before the next is chosen. The kernel's
    /// words come over a slow line: to hear them out costs a few milliseconds an episode.
    fn each_heard_out(&self) -> bool {
        true
    }
    /// Whether all that was wanted is known.
    fn done(&self) -> bool {
        false
    }
    /// What is to be told beside what came of the last one.
    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }
    /// How far it is, for whoever waits for it.
    fn how_far(&self) -> Option<HowFar> {
        None
    }
    /// How far it is, and what the summary says of that.
    fn explored(&self) -> Option<Explored> {
        None
    }
    /// Keeps what is known by now; the summary is of this moment.
    fn keep(&mut self, _summary: &Summary, _episode: u64) -> Result<(), Error> {
        Ok(())
    }
}

/// How an episode went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Went<'a> {
    /// What was to be.
    pub(super) plan: &'a Plan,
    /// What the guest and the device say.
    pub(super) record: &'a Record,
    /// What its teardowns and ops came to.
    pub(super) collisions: Collisions,
}
