//! Carries out one plan: arms its gate, starts its episode, raises the signal when the device
//! holds, lets go when the teardown has settled.

use std::time::Duration;

use dk_control::Event;
use knobrig_klog::Report;
use knobrig_proto::{EpisodeReport, FromGuest, ToGuest};
use tokio::time::Instant;

use super::guest::{Guest, Happening, Loss};
use crate::judge::plan::Plan;

/// Beyond the actors' own deadline: load, checks, and the report of what is stuck.
const GRACE: Duration = Duration::from_secs(60);

/// How an episode ended.
#[derive(Debug)]
pub enum Ended {
    /// The agent reported.
    Whole {
        /// What came of it.
        report: EpisodeReport,
        /// The device held an op in it.
        held: bool,
    },
    /// The kernel reported first.
    Kernel {
        /// What.
        report: Box<Report>,
        /// The episode whose marker stood before it.
        episode: Option<u64>,
    },
}

/// Runs a plan in a guest.
///
/// # Errors
/// The guest is lost.
pub async fn run(guest: &mut Guest, plan: &Plan) -> Result<Ended, Loss> {
    if let Some(gate) = &plan.gate {
        guest.device().arm(&gate.gate).await?;
    }
    let id = plan.episode.id;
    guest.send(&ToGuest::Episode(plan.episode.clone())).await?;
    let end = Instant::now() + Duration::from_millis(plan.episode.deadline_ms) + GRACE;
    let mut held = false;
    let mut let_go = false;
    let report = loop {
        match guest.next_until(end, "the episode's report").await? {
            Happening::Agent(FromGuest::Episode(report)) if report.id == id => break report,
            Happening::Agent(FromGuest::Settled {
                episode,
                actor,
                step,
                ..
            }) if episode == id => {
                if let Some(gate) = &plan.gate
                    && held
                    && actor == gate.teardown
                    && step == gate.step
                {
                    guest.device().release(&gate.gate.tag).await?;
                    let_go = true;
                }
            }
            Happening::Gate(Event::Held { tag, .. }) => {
                if let Some(gate) = &plan.gate
                    && tag == gate.gate.tag
                {
                    held = true;
                    let signal = ToGuest::Signal {
                        episode: id,
                        name: gate.signal.clone(),
                    };
                    guest.send(&signal).await?;
                }
            }
            Happening::Report { report, episode } => return Ok(Ended::Kernel { report, episode }),
            Happening::Agent(_) | Happening::Gate(_) | Happening::Marker(_) => {}
        }
    };
    if plan.gate.is_some() && !let_go {
        // Never reached, or let go by its deadline: nothing may wait in the next episode.
        guest.device().reset().await?;
    }
    Ok(Ended::Whole { report, held })
}
