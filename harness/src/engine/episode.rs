//! Carries out one plan: arms its gates, starts its episode, lets guest and device go on together
//! as its reactions say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dk_control::Event;
use knobrig_klog::Report;
use knobrig_proto::{EpisodeReport, FromGuest, Rest, ToGuest};
use tokio::time::Instant;

use knobrig_vcpu_proto::{Ordered, Range};

use super::guest::{Guest, Happening, Loss};
use super::vcpu::{Texts, Vcpus};
use crate::error::Error;
use crate::judge::plan::{Plan, Then, When, marker};
use crate::judge::record::{Delayed, Record, Seen};

/// Beyond the actors' own deadline: load, checks, and the report of what is stuck.
const GRACE: Duration = Duration::from_secs(60);
/// After a report of the kernel's, for the agent to tell how the episode ended. It may never be
/// able to.
pub const AFTERMATH: Duration = Duration::from_secs(3);

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
    /// What the device witnessed.
    pub witnessed: Vec<Event>,
    /// The device's ring runs still.
    pub ring_runs: bool,
}

/// Runs a plan in a guest. After a report of the kernel's it is heard for so long how the episode
/// ended, at most.
///
/// # Errors
/// The guest is lost.
pub async fn run(guest: &mut Guest, plan: &Plan, aftermath: Duration) -> Result<Ended, Loss> {
    for gate in &plan.gates {
        guest.device().arm(gate).await?;
    }
    let id = plan.episode.id;
    let mut episode = plan.episode.clone();
    episode.threads = plan.order.is_some() && guest.vcpus().is_some_and(|it| it.knows_threads());
    guest.send(&ToGuest::Episode(episode)).await?;
    let end = Instant::now() + Duration::from_millis(plan.episode.deadline_ms) + GRACE;
    let mut course = Course::new(plan);
    if plan.delays.is_some() && guest.vcpus().and_then(Vcpus::delays).is_none() {
        // They can't be, and nobody waits for them.
        course.follow(guest, When::Armed).await?;
    }
    let report = loop {
        match guest.next_until(end, "the episode's report").await? {
            Happening::Report {
                report,
                episode,
                begun,
            } => {
                let after = hear_out(guest, &mut course, aftermath).await;
                if let Some(first) = after.as_ref().and_then(|report| report.before.first()) {
                    guest.marked(&marker(id), first.start_ns);
                }
                let record = Box::new(record(guest, after, course));
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
    course.disarm(guest).await?;
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
    let running = guest.device().status().await?.running;
    course.witnessed.extend(guest.witnessed());
    // A device that may not use the bus any more stands still as one that was reset; its status
    // tells them apart, which matters where it saw what no driver may do.
    let ring_runs = running || !course.witnessed.is_empty() && guest.device_is_driven().await;
    Ok(Ended::Whole(Box::new(Whole {
        report,
        held: !course.held.is_empty(),
        witnessed: std::mem::take(&mut course.witnessed),
        record: record(guest, None, course),
        ring_runs,
    })))
}

/// After the kernel's report the agent may still be able to tell how the episode goes on. What the
/// plan has follow from what does, so that nobody waits for nothing.
async fn hear_out(
    guest: &mut Guest,
    course: &mut Course<'_>,
    longest: Duration,
) -> Option<EpisodeReport> {
    let end = Instant::now() + longest;
    loop {
        let happening = guest.next_until(end, "the episode's report").await.ok()?;
        if let Some(report) = course.hear(guest, happening).await.ok()? {
            return Some(report);
        }
    }
}

fn record(guest: &Guest, report: Option<EpisodeReport>, course: Course<'_>) -> Record {
    Record {
        report,
        delays: course.delayed,
        orders: course.orders,
        asleep: course.asleep,
        gates: seen(guest, course.told),
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
    asleep: Vec<Rest>,
    /// Where the code lies that is delayed.
    texts: Texts,
    /// The actors' threads, where they are told.
    threads: BTreeMap<String, u64>,
    /// All of it is loaded, here.
    code: Option<Vec<Range>>,
    /// It is time to arm delays or orders.
    asked: bool,
    /// They were armed.
    armed: bool,
    /// What came of its orders.
    orders: Vec<Ordered>,
    /// What came of its delays, once they have ended.
    delayed: Option<Delayed>,
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
            texts: Texts::of(&plan.watched()),
            threads: BTreeMap::new(),
            code: None,
            asked: plan.delays.is_some(),
            armed: false,
            orders: Vec::new(),
            delayed: None,
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
                    self.follow(guest, when).await?;
                    self.asleep.push(Rest {
                        actor: actor.clone(),
                        step,
                        place: wchan,
                    });
                }
                self.follow(guest, When::Settled(actor, step)).await?;
            }
            Happening::Agent(FromGuest::Held { episode, tag }) if episode == id => {
                self.held.insert(tag.clone());
                self.follow(guest, When::Held(tag)).await?;
            }
            Happening::Agent(FromGuest::Threads { episode, bases }) if episode == id => {
                self.threads = bases;
            }
            Happening::Gate(event @ Event::Witness { .. }) => self.witnessed.push(event),
            Happening::Gate(event @ Event::LetGo { .. }) => self.told.push(event),
            Happening::Gate(event @ Event::Held { .. }) => {
                self.told.push(event.clone());
                if let Event::Held { tag, .. } = event {
                    self.held.insert(tag.clone());
                    self.follow(guest, When::Held(tag)).await?;
                }
            }
            Happening::Marker(line) => self.loaded(guest, &line).await?,
            // The last delays are those that matter, and the report comes sooner without more.
            Happening::ReportBegins => {
                // If QEMU is gone by now, the report tells more than that.
                let _ = self.disarm(guest).await;
            }
            // A second report tells of what the first one broke.
            Happening::Report { .. } | Happening::Agent(_) => {}
        }
        Ok(None)
    }

    /// Whether a gate holds threads in the guest, and not requests in the device.
    fn in_guest(&self, tag: &str) -> bool {
        self.plan.episode.gates.iter().any(|gate| gate.tag == tag)
    }

    /// The console tells of a load: where delayed code lies now it is delayed.
    async fn loaded(&mut self, guest: &mut Guest, line: &str) -> Result<(), Loss> {
        let Some(code) = self.texts.see(line) else {
            return Ok(());
        };
        self.code = Some(code);
        match self.arm(guest).await? {
            true => self.follow(guest, When::Armed).await,
            false => Ok(()),
        }
    }

    /// Arms delays and orders if it is time and their code is there; true if that was the first time.
    async fn arm(&mut self, guest: &mut Guest) -> Result<bool, Loss> {
        let plan = self.plan;
        let cpus = guest.cpus;
        let (true, Some(vcpus)) = (self.asked, guest.vcpus()) else {
            return Ok(false);
        };
        let Some(code) = self.code.clone() else {
            return Ok(false);
        };
        if plan.order.is_none() && vcpus.delays().is_none() {
            return Ok(false);
        }
        if let Some((delays, plugin)) = plan.delays.as_ref().zip(vcpus.delays()) {
            plugin.arm(code, delays).await?;
        }
        if let Some(order) = &plan.order {
            let actors = &plan.episode.actors;
            let edges = self.texts.edges(order, actors, cpus, &self.threads);
            vcpus.order(edges.map_err(Error::Rig)?).await?;
        }
        Ok(!std::mem::replace(&mut self.armed, true))
    }

    /// Ends the delays and orders, if there are any.
    async fn disarm(&mut self, guest: &mut Guest) -> Result<(), Loss> {
        let Some(vcpus) = guest.vcpus().filter(|_| self.armed) else {
            return Ok(());
        };
        if let Some(plugin) = vcpus.delays()
            && self.plan.delays.is_some()
            && self.delayed.is_none()
        {
            let counts = plugin.disarm().await?;
            self.delayed = Some(self.texts.delayed(counts));
        }
        if self.plan.order.is_some() && self.orders.is_empty() {
            self.orders = vcpus.unorder().await?;
        }
        Ok(())
    }

    /// Does what follows from what has happened, and what follows from that.
    async fn follow(&mut self, guest: &mut Guest, what: When) -> Result<(), Loss> {
        let mut happened = vec![what];
        while let Some(what) = happened.pop() {
            let plan = self.plan;
            let reactions = plan.reactions.iter().filter(|it| it.when == what);
            for then in reactions.flat_map(|reaction| &reaction.then) {
                if *then == Then::Arm {
                    self.asked = true;
                    // Without what holds vCPUs there is no order, and nobody waits for it.
                    if self.arm(guest).await? || guest.vcpus().is_none() {
                        happened.push(When::Armed);
                    }
                } else {
                    self.carry_out(guest, then).await?;
                }
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, guest: &mut Guest, then: &Then) -> Result<(), Loss> {
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
            Then::Release(_) | Then::Arm => {}
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
        Ok(())
    }
}
