//! The live display: a line on a terminal, plain lines otherwise. All of it on stderr.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::events::{Event, Reporter};
use crate::error::Error;
use crate::schedule::exhaust::Counts;

/// A plain line at most this often while nothing else is told.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How far a run is to go.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// So long from the first guest's start.
    Duration(Duration),
    /// So many episodes.
    Episodes(u64),
}

/// One line for what is under way: with a spinner on a terminal, otherwise a plain line now and then.
struct Line {
    bar: Option<ProgressBar>,
    said: Instant,
}

impl Line {
    /// Shows nothing until it is told something.
    fn new() -> Self {
        Self {
            bar: None,
            said: Instant::now(),
        }
    }

    /// A line that stays.
    fn say(&mut self, text: &str) {
        self.said = Instant::now();
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// What begins: a plain line at once.
    fn begins(&mut self, text: String) {
        match std::io::stderr().is_terminal() {
            true => self.now(text),
            false => self.say(&text),
        }
    }

    /// What is under way.
    fn now(&mut self, text: String) {
        if std::io::stderr().is_terminal() {
            self.bar.get_or_insert_with(spinner).set_message(text);
        } else if self.said.elapsed() >= PLAIN_EVERY {
            self.say(&text);
        }
    }

    /// Nothing is under way.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Shows a run.
pub struct Live {
    line: Line,
    goal: Goal,
    started: Option<Instant>,
    guest: u64,
    episodes: u64,
    findings: usize,
    /// How far an exploration is, and how far it was at first.
    explored: Option<(Counts, u64)>,
}

impl Live {
    /// A display for a run with that goal.
    pub fn new(goal: Goal) -> Self {
        Self {
            line: Line::new(),
            goal,
            started: None,
            guest: 0,
            episodes: 0,
            findings: 0,
            explored: None,
        }
    }

    fn how_far(&self) -> String {
        let elapsed = self.started.map_or(Duration::ZERO, |at| at.elapsed());
        let rate = self.episodes as f64 / elapsed.as_secs_f64().max(0.001);
        if let Some((counts, first)) = &self.explored {
            return explored_line(counts, *first, elapsed, self.findings);
        }
        let left = match self.goal {
            Goal::Duration(goal) => {
                format!("{} s left", goal.saturating_sub(elapsed).as_secs())
            }
            // An end that no number tells: it is when all is known.
            Goal::Episodes(u64::MAX) => "to go on".to_owned(),
            Goal::Episodes(goal) => format!("{} to go", goal.saturating_sub(self.episodes)),
        };
        format!(
            "guest {}: {} episodes, {rate:.1}/s, {} findings, {left}",
            self.guest, self.episodes, self.findings
        )
    }

    fn say(&mut self, text: &str) {
        self.line.say(text);
    }
}

impl Reporter for Live {
    fn event(&mut self, _at: Duration, event: &Event) -> Result<(), Error> {
        match event {
            Event::RunStarted { title, seed, .. } => self.say(&format!("{title}, seed {seed}")),
            Event::GuestBooting { guest } => {
                self.guest = *guest;
                self.started.get_or_insert_with(Instant::now);
                let boots = format!("guest {guest} boots; {}", self.how_far());
                self.line.now(boots);
            }
            Event::GuestUp {
                guest,
                boot_ms,
                kernel,
            } => {
                let seconds = *boot_ms as f64 / 1000.0;
                self.say(&format!(
                    "guest {guest} is up after {seconds:.1} s: Linux {kernel}"
                ));
            }
            Event::GuestUnfit { guest, title } => {
                self.say(&format!(
                    "guest {guest} is given up, its boot was not clean ({title}); another boots"
                ));
            }
            Event::GuestLost { guest, why } => self.say(&format!("guest {guest} is lost: {why}")),
            Event::DeviceDied { guest, why } | Event::EmulatorFault { guest, why } => {
                self.say(&format!("guest {guest} is given up: {why}; another boots"));
            }
            Event::Surveyed { .. } | Event::GatesEnded { .. } | Event::Chosen { .. } => {}
            Event::Explored { counts } => {
                let first = self.explored.map_or(counts.done, |(_, first)| first);
                self.explored = Some((*counts, first));
            }
            Event::Ungated { why, .. } => self.say(&format!("no gates in functions: {why}")),
            Event::EpisodeEnded { .. } => {
                self.episodes += 1;
                self.line.now(self.how_far());
            }
            Event::Found {
                number,
                title,
                count,
                ..
            } => {
                self.findings = self.findings.max(*number);
                if *count == 1 {
                    self.say(&format!("finding {number}: {title}"));
                }
            }
            Event::RunEnded { .. } => self.line.clear(),
        }
        Ok(())
    }
}

/// How far something is that has no goal in time or episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct HowFar {
    /// In words.
    pub says: String,
    /// The part of the whole that is done, where the whole is known.
    pub share: Option<f64>,
}

/// Shows how far something is, and how long the rest will take by what has been done so far.
pub struct Status {
    line: Line,
    begun: Instant,
}

impl Status {
    /// Shows nothing until it is told how far it is.
    pub fn new() -> Self {
        Self {
            line: Line::new(),
            begun: Instant::now(),
        }
    }

    /// It has come so far.
    pub fn update(&mut self, far: &HowFar) {
        let left = (far.share).filter(|share| *share > 0.0 && *share < 1.0);
        let left = left.map(|share| time_left(self.begun.elapsed(), share));
        let left = left.map_or(String::new(), |left| {
            format!(", about {} left", human_time(left))
        });
        self.line.now(format!("{}{left}", far.says));
    }
}

/// How far an exploration is, and how long the rest will take by what has been done so far.
fn explored_line(counts: &Counts, first: u64, elapsed: Duration, findings: usize) -> String {
    let left = counts.schedules - counts.done.min(counts.schedules);
    let done = counts.done.saturating_sub(first);
    let estimate = match done {
        0 => String::new(),
        done => {
            let share = done as f64 / (done + left) as f64;
            format!(", about {} left", human_time(time_left(elapsed, share)))
        }
    };
    format!(
        "explored {} of {}, {} can't be, {findings} findings{estimate}",
        counts.done,
        counts.schedules,
        counts.waits + counts.absent
    )
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Shows set-up: packages, kernel, modules.
pub struct SetUp {
    state: Mutex<SetUpState>,
}

struct SetUpState {
    line: Line,
    step: String,
    begun: Instant,
    estimate: Option<Duration>,
}

impl SetUp {
    /// Shows nothing until something takes time.
    pub fn new() -> Self {
        let state = SetUpState {
            line: Line::new(),
            step: String::new(),
            begun: Instant::now(),
            estimate: None,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, SetUpState> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for SetUp {
    fn default() -> Self {
        Self::new()
    }
}

impl knobrig_images::Progress for SetUp {
    fn begin(&self, step: &str, estimate: Option<Duration>) {
        let mut state = self.state();
        state.step = step.to_owned();
        state.begun = Instant::now();
        state.estimate = estimate;
        let about = estimate.map(|time| format!(" (about {})", human_time(time)));
        let begins = format!("{step}{}", about.unwrap_or_default());
        state.line.begins(begins);
    }

    fn update(&self, fraction: f64, detail: &str) {
        let mut state = self.state();
        let elapsed = state.begun.elapsed();
        // The fraction done tells more than the first estimate once there is some of it.
        let left = if fraction > 0.05 {
            Some(time_left(elapsed, fraction))
        } else {
            // One that has proved too short tells nothing.
            state
                .estimate
                .and_then(|estimate| estimate.checked_sub(elapsed))
        };
        let left = left.map_or(String::new(), |left| format!(", {} left", human_time(left)));
        let line = format!(
            "{}: {:.0} %{left} {detail}",
            state.step,
            fraction.min(1.0) * 100.0
        );
        state.line.now(line);
    }

    fn end(&self) {
        let mut state = self.state();
        let elapsed = state.begun.elapsed();
        state.line.clear();
        if elapsed >= Duration::from_secs(2) {
            let line = format!("{}: done in {}", state.step, human_time(elapsed));
            state.line.say(&line);
        }
    }

    fn say(&self, line: &str) {
        self.state().line.say(line);
    }
}

/// How long the rest takes by what has been done so far, which is this share of the whole.
fn time_left(elapsed: Duration, share: f64) -> Duration {
    elapsed.mul_f64((1.0 - share.min(1.0)) / share)
}

/// `8 s`, `3 min 20 s`.
pub fn human_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
