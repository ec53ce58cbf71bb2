//! Carries out one plan: arms its gates, starts its episode, lets guest and device go on together
//! as its reactions say.

use std::collections::BTreeSet;
use std::time::Duration;

use dk_control::Event;
use knobrig_klog::Report;
use knobrig_proto::{EpisodeReport, FromGuest, ToGuest};
use tokio::time::Instant;

use super::guest::{Guest, Happening, Loss};
use crate::judge::plan::{Plan, Then, When, marker};
use crate::judge::record::{Asleep, Record, Seen};

/// Beyond the actors' own deadline: load, checks, and the report of what is stuck.
const GRACE: Duration = Duration::from_secs(60);
/// After a report of the kernel's, for the agent to tell how the episode ended. It may never be
/// able to.
const AFTERMATH: Duration = Duration::from_secs(3);

/// How an episode ended.
#[derive(Debug)]
pub enum Ended {
    /// The agent reported.
    Whole(Box<Whole>),
    /// The kernel reported first.
    Kernel {
        /// What.
        report: Box<Report>,
        /// The episode whose marker stood before it.
        episode: Option<u64>,
        /// How the episode went that ran when it came.
        record: Box<Record>,
        /// When its first line came.
        begun: Instant,
    },
}

/// What guest and device say of an episode.
#[derive(Debug)]
pub struct Whole {
    /// What came of it in the guest.
    pub report: EpisodeReport,
    /// A gate held somebody in it.
    pub held: bool,
    /// How it went, but for the report.
    pub record: Record,
    /// Who was seen asleep in the kernel.
    pub asleep: Vec<Asleep>,
    /// What the device witnessed.
    pub witnessed: Vec<Event>,
    /// The device's ring runs still.
    pub ring_runs: bool,
}

/// Runs a plan in a guest.
///
/// # Errors
/// The guest is lost.
pub async fn run(guest: &mut Guest, plan: &Plan) -> Result<Ended, Loss> {
    for gate in &plan.gates {
        guest.device().arm(gate).await?;
    }
    let id = plan.episode.id;
    guest.send(&ToGuest::Episode(plan.episode.clone())).await?;
    let end = Instant::now() + Duration::from_millis(plan.episode.deadline_ms) + GRACE;
    let mut course = Course::new(plan);
    let report = loop {
        match guest.next_until(end, "the episode's report").await? {
            Happening::Report {
                report,
                episode,
                begun,
            } => {
                let after = aftermath(guest, &mut course).await;
                if let Some(first) = after.as_ref().and_then(|report| report.before.first()) {
                    guest.marked(&marker(id), first.start_ns);
                }
                let record = Box::new(record(guest, after, course.told));
                return Ok(Ended::Kernel {
                    report,
                    episode,
                    record,
                    begun,
                });
            }
            happening => {
                if let Some(report) = course.hear(guest, happening).await? {
                    break report;
                }
            }
        }
    };
    // Whoever was to bring it back may not have come so far.
    guest.revive_device().await?;
    if (plan.gates.iter()).any(|gate| !course.let_go.contains(&gate.tag)) {
        // Never reached, or let go by its deadline: nothing may wait in the next episode.
        guest.device().reset().await?;
    }
    if let Some(first) = report.before.first() {
        guest.marked(&marker(id), first.start_ns);
    }
    // The answer comes after all that the device has told so far.
    let ring_runs = guest.device().status().await?.running;
    course.witnessed.extend(guest.witnessed());
    Ok(Ended::Whole(Box::new(Whole {
        report,
        held: !course.held.is_empty(),
        asleep: course.asleep,
        record: record(guest, None, course.told),
        witnessed: course.witnessed,
        ring_runs,
    })))
}

/// After the kernel's report the agent may still be able to tell how the episode goes on. What the
/// plan has follow from what does, so that nobody waits for nothing.
async fn aftermath(guest: &mut Guest, course: &mut Course<'_>) -> Option<EpisodeReport> {
    let end = Instant::now() + AFTERMATH;
    loop {
        let happening = guest.next_until(end, "the episode's report").await.ok()?;
        if let Some(report) = course.hear(guest, happening).await.ok()? {
            return Some(report);
        }
    }
}

fn record(guest: &Guest, report: Option<EpisodeReport>, told: Vec<Event>) -> Record {
    Record {
        report,
        gates: seen(guest, told),
        log_ahead_ns: guest.log_ahead_ns(),
    }
}

/// What the device told, by the guest's clock.
fn seen(guest: &Guest, told: Vec<Event>) -> Vec<Seen> {
    let clocks = guest.clocks();
    (told.into_iter())
        .filter_map(|event| {
            let (Event::Held { ns, .. } | Event::LetGo { ns, .. } | Event::Witness { ns, .. }) =
                &event;
            Some(Seen {
                guest_ns: clocks.to_guest(*ns)?,
                event,
            })
        })
        .collect()
}

/// How far an episode has come.
struct Course<'a> {
    plan: &'a Plan,
    /// The gates that have held somebody.
    held: BTreeSet<String>,
    /// The device's gates that were let go as the plan says.
    let_go: BTreeSet<String>,
    /// What the device told of its gates.
    told: Vec<Event>,
    /// What the device witnessed.
    witnessed: Vec<Event>,
    /// Who was seen asleep.
    asleep: Vec<Asleep>,
}

impl<'a> Course<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            held: BTreeSet::new(),
            let_go: BTreeSet::new(),
            told: Vec::new(),
            witnessed: Vec::new(),
            asleep: Vec::new(),
        }
    }

    /// Notes what happened and does what the plan has follow from it. Returns the episode's report
    /// when it is that.
    async fn hear(
        &mut self,
        guest: &mut Guest,
        happening: Happening,
    ) -> Result<Option<EpisodeReport>, Loss> {
        let id = self.plan.episode.id;
        match happening {
            Happening::Agent(FromGuest::Episode(report)) if report.id == id => {
                return Ok(Some(report));
            }
            Happening::Agent(FromGuest::Settled {
                episode,
                actor,
                step,
                wchan,
                ..
            }) if episode == id => {
                if !wchan.is_empty() {
                    let when = When::Asleep(actor.clone(), step);
                    self.follow(guest, &when).await?;
                    self.asleep.push(Asleep {
                        actor: actor.clone(),
                        step,
                        place: wchan,
                    });
                }
                self.follow(guest, &When::Settled(actor, step)).await?;
            }
            Happening::Agent(FromGuest::Held { episode, tag }) if episode == id => {
                self.held.insert(tag.clone());
                self.follow(guest, &When::Held(tag)).await?;
            }
            Happening::Gate(event @ Event::Witness { .. }) => self.witnessed.push(event),
            Happening::Gate(event @ Event::LetGo { .. }) => self.told.push(event),
            Happening::Gate(event @ Event::Held { .. }) => {
                self.told.push(event.clone());
                if let Event::Held { tag, .. } = event {
                    self.held.insert(tag.clone());
                    self.follow(guest, &When::Held(tag)).await?;
                }
            }
            // A second report tells of what the first one broke.
            Happening::Report { .. } | Happening::Agent(_) | Happening::Marker(_) => {}
        }
        Ok(None)
    }

    /// Whether a gate holds threads in the guest, and not requests in the device.
    fn in_guest(&self, tag: &str) -> bool {
        self.plan.episode.gates.iter().any(|gate| gate.tag == tag)
    }

    /// Does what follows from what has happened.
    async fn follow(&mut self, guest: &mut Guest, what: &When) -> Result<(), Loss> {
        let reactions = self.plan.reactions.iter().filter(|it| it.when == *what);
        for then in reactions.flat_map(|reaction| &reaction.then) {
            match then {
                Then::Raise(name) => {
                    let signal = ToGuest::Signal {
                        episode: self.plan.episode.id,
                        name: name.clone(),
                    };
                    guest.send(&signal).await?;
                }
                // A function gate that is released before it holds anybody never does.
                Then::Release(tag) | Then::Free(tag) if self.in_guest(tag) => {
                    let release = ToGuest::Release {
                        episode: self.plan.episode.id,
                        tag: tag.clone(),
                    };
                    guest.send(&release).await?;
                }
                // A gate that holds nothing yet still has its request to come.
                Then::Release(tag) if self.held.contains(tag) => {
                    guest.device().release(tag).await?;
                    self.let_go.insert(tag.clone());
                }
                Then::Release(_) => {}
                Then::Free(tag) => {
                    guest.device().disarm(tag).await?;
                    guest.device().release(tag).await?;
                    self.let_go.insert(tag.clone());
                }
                Then::Unplug(id) => guest.unplug(id).await?,
                Then::Plug(id) => guest.plug(id).await?,
                Then::Kill => guest.kill_device().await,
                Then::Revive => guest.revive_device().await?,
            }
        }
        Ok(())
    }
}
