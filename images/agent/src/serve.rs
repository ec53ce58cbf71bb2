//! Who does what the host asks.

use std::io::BufReader;
use std::io::Read;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use knobrig_proto::{Episode, FromGuest, Outcome, Priority, Step, ToGuest, VERSION, from_line};
use rustix::process::setpriority_process;

use crate::clock::uptime_ms;
use crate::conductor::Conductor;
use crate::inbox::{Line, read_line};
use crate::lock;
use crate::outbox::Outbox;
use crate::pool::{Job, Pool};
use crate::run::Run;
use crate::scene::{For, Scene};
use crate::step::Doer;

/// The port gives a page at a time.
const READ_AT_ONCE: usize = 64 << 10;
/// What is still to be told has so long before the power goes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Actors of an episode, at most: each is a thread.
const MOST_ACTORS: usize = 256;

/// Why serving ended.
#[derive(Debug)]
pub enum Ended {
    /// The host asked for it.
    PowerOff,
    /// The stream ended. A virtio port never does.
    HangUp,
    /// The stream failed.
    Broken(std::io::Error),
}

/// What the agent holds between requests.
#[derive(Debug)]
struct Agent {
    outbox: Arc<Outbox>,
    pool: Arc<Pool>,
    /// The running episode.
    running: Arc<Mutex<Option<Arc<Run>>>>,
    conductor: mpsc::Sender<Arc<Run>>,
}

/// Says hello and does what comes, until the power is to go. Someone else writes the outbox out
/// ([`Outbox::write_to`]).
///
/// # Errors
/// When the agent's own threads can't be started.
pub fn serve(
    from: impl Read,
    outbox: &Arc<Outbox>,
    pool: &Arc<Pool>,
) -> Result<Ended, std::io::Error> {
    let (conductor, episodes) = mpsc::channel();
    let agent = Agent {
        outbox: Arc::clone(outbox),
        pool: Arc::clone(pool),
        running: Arc::default(),
        conductor,
    };
    let (outbox_too, pool_too) = (Arc::clone(outbox), Arc::clone(pool));
    let running = Arc::clone(&agent.running);
    std::thread::Builder::new()
        .name("conductor".into())
        .spawn(move || conduct_all(&episodes, &pool_too, &outbox_too, &running))?;
    be_prompt();
    outbox.send(&FromGuest::Hello {
        version: VERSION,
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        cpus: pool.cpus() as u32,
        uptime_ms: uptime_ms(),
    });
    let mut from = BufReader::with_capacity(READ_AT_ONCE, from);
    loop {
        let message = match read_line(&mut from) {
            Ok(Line::Text(line)) => from_line(&line).map_err(|bad| bad.to_string()),
            Ok(Line::TooLong) => Err("a line from the host was too long; skipped".to_owned()),
            Ok(Line::NotText) => Err("a line from the host was not UTF-8; skipped".to_owned()),
            Ok(Line::End) => return Ok(Ended::HangUp),
            Err(why) => return Ok(Ended::Broken(why)),
        };
        match message {
            Ok(ToGuest::PowerOff) => {
                outbox.drain(LAST_WORDS);
                return Ok(Ended::PowerOff);
            }
            Ok(ToGuest::Do { id, steps }) => agent.begin_do(id, steps),
            Ok(ToGuest::Episode(episode)) => agent.begin_episode(episode),
            Ok(ToGuest::Signal { episode, name }) => {
                if let Some(run) = &*lock(&agent.running)
                    && run.episode.id == episode
                {
                    run.scene.raise(name);
                }
            }
            Ok(ToGuest::Release { episode, tag }) => {
                if let Some(run) = &*lock(&agent.running)
                    && run.episode.id == episode
                {
                    run.scene.release_gate(&tag);
                }
            }
            Err(why) => outbox.fault(why),
        }
    }
}

/// The agent's own threads run little and must not wait for a CPU that actors keep busy: their
/// timeliness is the rig's. (On a host without the right to it, they wait.)
pub fn be_prompt() {
    let _ = setpriority_process(None, -20);
}

impl Agent {
    fn begin_do(&self, id: u64, steps: Vec<Step>) {
        if self.outbox.full() {
            return self
                .outbox
                .fault(format!("do {id} refused: too many answers lie unread"));
        }
        match self.pool.hire("do", None, Priority::Usual) {
            Ok(worker) => {
                let outbox = Arc::clone(&self.outbox);
                worker.start(Box::new(DoJob {
                    id,
                    steps,
                    outcomes: Vec::new(),
                    outbox,
                }));
            }
            Err(why) => {
                self.outbox
                    .fault(format!("do {id} refused: failed to start a thread: {why}"));
            }
        }
    }

    fn begin_episode(&self, episode: Episode) {
        let id = episode.id;
        if let Err(why) = self.try_episode(episode) {
            self.outbox.fault(format!("episode {id} refused: {why}"));
        }
    }

    fn try_episode(&self, episode: Episode) -> Result<(), String> {
        if self.outbox.full() {
            return Err("too many answers lie unread".to_owned());
        }
        if episode.actors.len() > MOST_ACTORS {
            return Err(format!(
                "{} actors, at most {MOST_ACTORS}",
                episode.actors.len()
            ));
        }
        let mut names: Vec<&str> = episode.actors.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two actors are named {}", pair[0]));
        }
        let mut running = lock(&self.running);
        if let Some(run) = &*running {
            return Err(format!("episode {} is running", run.episode.id));
        }
        // From here on signals for it count, even before its first step.
        let run = Arc::new(Run::new(episode, Arc::clone(&self.outbox)));
        *running = Some(Arc::clone(&run));
        self.outbox.set_episode(run.episode.id);
        self.conductor
            .send(run)
            .map_err(|_| "the conductor is gone".to_owned())
    }
}

/// The conductor's life.
fn conduct_all(
    episodes: &mpsc::Receiver<Arc<Run>>,
    pool: &Arc<Pool>,
    outbox: &Arc<Outbox>,
    running: &Mutex<Option<Arc<Run>>>,
) {
    be_prompt();
    let mut conductor = Conductor::new(pool, outbox);
    for run in episodes {
        let report = conductor.conduct(&run);
        // Before the report is out: its reader may send the next episode at once.
        *lock(running) = None;
        outbox.set_episode(0);
        match report {
            Ok(report) => outbox.send(&FromGuest::Episode(report)),
            Err(why) => outbox.fault(why.to_string()),
        }
    }
}

/// A `Do`.
#[derive(Debug)]
struct DoJob {
    id: u64,
    steps: Vec<Step>,
    outcomes: Vec<Outcome>,
    outbox: Arc<Outbox>,
}

impl Job for DoJob {
    fn run(&mut self, buf: &mut Vec<u8>) {
        let scene = Scene::new(self.steps.iter(), 0);
        let mut doer = Doer {
            scene: &scene,
            gates: &[],
            stage: None,
            whom: For::Once,
            // Nobody waits for these by the call.
            call_began: &AtomicU64::new(0),
            buf,
        };
        self.outcomes = self
            .steps
            .iter()
            .map(|step| doer.perform(step).outcome)
            .collect();
        scene.slots.close_all();
    }

    fn ended(&mut self) {
        let outcomes = std::mem::take(&mut self.outcomes);
        self.outbox.send(&FromGuest::Done {
            id: self.id,
            outcomes,
        });
    }
}
