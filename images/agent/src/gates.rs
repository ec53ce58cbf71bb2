//! Function gates: the agent's end of `/dev/knobgate`, which knobgate.ko makes.
//!
//! The module is loaded when an episode first asks for a gate or a survey; a guest that needs
//! none never has it. Functions stay hooked once they are, since that takes the kernel
//! milliseconds; arming is a write.
//!
//! Numbers of gates go round, so that what is still told of an old gate is never taken for a new
//! one's.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use knobrig_proto::{
    End, Episode, FromGuest, FunctionGate, GateReport, Hold, How, MODULE_DIR, Pass, Step, Who, Why,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::write;
use rustix::system::finit_module;

use crate::lock;
use crate::outbox::Outbox;
use crate::run::Run;
use crate::serve::be_prompt;

/// The module's name.
const MODULE: &str = "knobgate";
/// Its device.
const DEVICE: &str = "/dev/knobgate";
/// How many gates it has.
const GATES: usize = 64;
/// How many functions it can hook.
const FUNCTIONS: usize = 512;
/// Lines come by the page.
const READ_AT_ONCE: usize = 16 << 10;

/// Calls of one kind that a survey tells.
const KEPT: u32 = 4;

/// The gates of an episode that are armed, by tag.
pub type Armed = BTreeMap<String, usize>;

/// Whose gate a number is: the latest episode's that used it.
type Owners = Arc<Mutex<Vec<Option<(Weak<Run>, String)>>>>;

/// An open `/dev/knobgate`.
#[derive(Debug)]
pub struct Gates {
    control: File,
    owners: Owners,
    /// The next number to use.
    next: usize,
    /// Hooked functions and their numbers; what can't be hooked, and why.
    functions: HashMap<String, Result<usize, String>>,
    /// Numbers of functions given so far.
    given: usize,
}

impl Gates {
    /// Loads the module, unless it is loaded, and opens its device.
    ///
    /// # Errors
    /// What of that failed, in words.
    pub fn open(outbox: &Arc<Outbox>) -> Result<Self, String> {
        if std::fs::metadata(DEVICE).is_err() {
            load().map_err(|why| format!("failed to load {MODULE}: {why}"))?;
        }
        let events = device().map_err(|why| format!("failed to open {DEVICE}: {why}"))?;
        let control = device().map_err(|why| format!("failed to open {DEVICE}: {why}"))?;
        let owners: Owners = Arc::new(Mutex::new(vec![None; GATES]));
        let (told, outbox) = (Arc::clone(&owners), Arc::clone(outbox));
        std::thread::Builder::new()
            .name("gates".into())
            .spawn(move || {
                be_prompt();
                if let Err(why) = hear(events, &told, &outbox) {
                    outbox.fault(format!("failed to read {DEVICE}: {why}"));
                }
            })
            .map_err(|why| format!("failed to start a thread: {why}"))?;
        Ok(Self {
            control,
            owners,
            next: 0,
            functions: HashMap::new(),
            given: 0,
        })
    }

    /// Something to release gates with, for others.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn releaser(&self) -> io::Result<File> {
        self.control.try_clone()
    }

    /// Names the modules under test; before they are loaded.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn name_modules(&self, episode: &Episode) -> Result<(), String> {
        self.say(&format!("modules {}", episode.under_test.join(" ")))
    }

    /// Unhooks what a module left that has gone; before it is loaded again.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn tidy(&self) -> Result<(), String> {
        self.say("tidy")
    }

    /// Hooks the functions that the episode names, arms its gates for these threads of its
    /// actors, and begins its survey. Gives the gates that are armed, and why others are not.
    ///
    /// # Errors
    /// What failed, in words; nothing is armed then.
    pub fn arm(
        &mut self,
        run: &Arc<Run>,
        tids: &BTreeMap<String, i32>,
    ) -> Result<(Armed, HashMap<String, String>), String> {
        let episode = &run.episode;
        let gated = episode.gates.iter().map(|gate| gate.function.as_str());
        let surveyed = episode.survey.iter().map(String::as_str);
        self.hook(gated.chain(surveyed))?;
        let mut armed = Armed::new();
        let mut not = HashMap::new();
        for gate in &episode.gates {
            match self.arm_one(run, gate, tids) {
                Ok(number) => {
                    armed.insert(gate.tag.clone(), number);
                }
                Err(why) => {
                    not.insert(gate.tag.clone(), why);
                }
            }
        }
        if !episode.survey.is_empty() {
            let tids: Vec<_> = tids.values().map(i32::to_string).collect();
            self.say(&format!("watch {}", tids.join(" ")))?;
        }
        Ok((armed, not))
    }

    fn arm_one(
        &mut self,
        run: &Arc<Run>,
        gate: &FunctionGate,
        tids: &BTreeMap<String, i32>,
    ) -> Result<usize, String> {
        let function = match self.functions.get(&gate.function) {
            Some(Ok(number)) => *number,
            Some(Err(why)) => return Err(why.clone()),
            None => return Err(format!("{} was not hooked", gate.function)),
        };
        let who = match &gate.who {
            Who::Anybody => "any".to_owned(),
            Who::Worker => "workers".to_owned(),
            Who::Actor(name) => tids
                .get(name)
                .ok_or_else(|| format!("no actor is named {name}"))?
                .to_string(),
        };
        let number = self.next;
        let end = match gate.end {
            End::Entry => "entry",
            End::Return => "return",
        };
        // Told before it can be reached.
        lock(&self.owners)[number] = Some((Arc::downgrade(run), gate.tag.clone()));
        self.say(&format!(
            "arm {number} {function} {end} {who} {} {} {} {}",
            if gate.own { "own" } else { "any" },
            gate.occurrence,
            gate.deadline_ms,
            if gate.sleeps { "sleep" } else { "stay" },
        ))?;
        self.next = (number + 1) % GATES;
        Ok(number)
    }

    /// Hooks functions that aren't yet. One that can't be is remembered with the reason.
    fn hook<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let mut fresh = Vec::new();
        for name in names {
            // Those of modules come and go with them; the module forgets numbers that are void.
            let known = self.functions.get(name);
            if known.is_some_and(|it| it.is_ok() && !name.contains(':')) {
                continue;
            }
            let number = match known {
                Some(Ok(number)) => *number,
                _ => self.given,
            };
            let hooked = match number < FUNCTIONS {
                true => self.say(&format!("func {number} {name}")).map(|()| number),
                false => Err(format!("{FUNCTIONS} functions are hooked already")),
            };
            if hooked.is_ok() {
                self.given = self.given.max(number + 1);
                fresh.push(name.to_owned());
            }
            self.functions.insert(name.to_owned(), hooked);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        self.say("hook").inspect_err(|why| {
            for name in fresh {
                self.functions.insert(name, Err(why.clone()));
            }
        })
    }

    /// Releases and forgets all, ends the survey, and gives what came of both.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn disarm(
        &mut self,
        episode: &Episode,
        armed: &Armed,
        not: &HashMap<String, String>,
        tids: &BTreeMap<String, i32>,
    ) -> Result<(Vec<GateReport>, Vec<Pass>), String> {
        // Whoever is held goes on first: its line is whole then.
        for number in armed.values() {
            self.say(&format!("release {number}"))?;
        }
        let names: HashMap<i32, &str> = tids.iter().map(|(name, tid)| (*tid, &**name)).collect();
        let mut states = self.read("gates")?;
        // It is on its way; what it does there takes microseconds.
        let begun = Instant::now();
        while armed.values().any(|number| still_held(&states, *number)) && begun.elapsed() < SETTLE
        {
            std::thread::yield_now();
            states = self.read("gates")?;
        }
        let reports = (episode.gates.iter())
            .map(|gate| GateReport {
                tag: gate.tag.clone(),
                unarmed: not.get(&gate.tag).cloned(),
                calls: 0,
                hold: None,
                waited: Vec::new(),
            })
            .map(|mut report| {
                if let Some(number) = armed.get(&report.tag)
                    && let Some(line) = line_of(&states, *number)
                {
                    fill(&mut report, line, &names);
                }
                report
            })
            .collect();
        let mut passes = Vec::new();
        if !episode.survey.is_empty() {
            self.say("unwatch")?;
            let functions: HashMap<usize, &str> = (self.functions.iter())
                .filter_map(|(name, number)| Some((*number.as_ref().ok()?, name.as_str())))
                .collect();
            let text = self.read("passes")?;
            let parsed = text.lines().map(|line| pass(line, &functions, &names));
            passes = first_few(parsed.flatten());
        }
        self.say("disarm")?;
        Ok((reports, passes))
    }

    fn say(&self, command: &str) -> Result<(), String> {
        say(&self.control, command)
    }

    /// Reads what a word stands for, to its end.
    fn read(&self, what: &str) -> Result<String, String> {
        self.say(what)?;
        let mut text = String::new();
        let mut buffer = vec![0; READ_AT_ONCE];
        let mut control = &self.control;
        loop {
            match control.read(&mut buffer) {
                Ok(0) => return Ok(text),
                Ok(len) => text.push_str(&String::from_utf8_lossy(&buffer[..len])),
                Err(why) => return Err(format!("{MODULE}: read {what}: {why}")),
            }
        }
    }
}

/// How long a released thread has to be seen to go on.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(500);

/// One command, one write.
///
/// # Errors
/// The command and its errno, in words.
pub fn say(control: &File, command: &str) -> Result<(), String> {
    match write(control, command.as_bytes()) {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("{MODULE}: {command}: {why}")),
    }
}

fn load() -> rustix::io::Result<()> {
    let path = format!("{MODULE_DIR}/{MODULE}.ko");
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    finit_module(&file, c"", 0)
}

fn device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

/// Tells what happens at gates, as long as the device is there.
fn hear(mut events: File, owners: &Owners, outbox: &Outbox) -> io::Result<()> {
    let mut buffer = [0; 256];
    loop {
        let len = match events.read(&mut buffer) {
            Ok(len) => len,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        };
        let text = String::from_utf8_lossy(&buffer[..len]);
        let Some((number, "reached")) = text.trim_end().split_once(' ') else {
            continue;
        };
        let number: Option<usize> = number.parse().ok();
        let owner = number.and_then(|number| lock(owners).get(number)?.clone());
        if let Some((run, tag)) = owner
            && let Some(run) = run.upgrade()
        {
            run.scene.gate_holds(&tag);
            outbox.send(&FromGuest::Held {
                episode: run.episode.id,
                tag,
            });
        }
    }
}

fn line_of(states: &str, number: usize) -> Option<&str> {
    states.lines().find(|line| {
        line.split_once(' ')
            .is_some_and(|(it, _)| it.parse() == Ok(number))
    })
}

fn still_held(states: &str, number: usize) -> bool {
    line_of(states, number).is_some_and(|line| line.split(' ').nth(1) == Some("held"))
}

/// `NUMBER STATE CALLS TID NS HOW LEFT_NS WHY`
fn fill(report: &mut GateReport, line: &str, names: &HashMap<i32, &str>) -> Option<()> {
    let mut words = line.split(' ').skip(2);
    report.calls = words.next()?.parse().ok()?;
    let tid: i32 = words.next()?.parse().ok()?;
    let ns: u64 = words.next()?.parse().ok()?;
    let how = match words.next()? {
        "preempted" => How::Preempted,
        "slept" => How::Slept,
        _ => How::Spun,
    };
    let left_ns = words.next()?.parse().ok()?;
    let why = match words.next()? {
        "released" => Why::Released,
        "killed" => Why::Killed,
        _ => Why::Deadline,
    };
    if ns > 0 {
        let who = names
            .get(&tid)
            .map_or_else(|| "somebody".to_owned(), |name| (*name).to_owned());
        report.hold = Some(Hold {
            who,
            ns,
            how,
            left_ns,
            why,
        });
    }
    Some(())
}

/// `FUNCTION TID NS -MARKS`
fn pass(line: &str, functions: &HashMap<usize, &str>, names: &HashMap<i32, &str>) -> Option<Pass> {
    let mut words = line.split(' ');
    let number: usize = words.next()?.parse().ok()?;
    let function = functions.get(&number)?;
    let tid: i32 = words.next()?.parse().ok()?;
    let ns = words.next()?.parse().ok()?;
    let marks = words.next()?;
    let who = match names.get(&tid) {
        _ if marks.contains('i') => Who::Anybody,
        Some(name) => Who::Actor((*name).to_owned()),
        None if marks.contains('w') => Who::Worker,
        None => Who::Anybody,
    };
    Some(Pass {
        function: (*function).to_owned(),
        who,
        own: marks.contains('o'),
        occurrence: 0,
        holdable: !marks.contains('a'),
        ns,
    })
}

/// Numbers the calls and keeps the first of each kind.
fn first_few(passes: impl Iterator<Item = Pass>) -> Vec<Pass> {
    let mut counts: HashMap<(String, Who, bool), u32> = HashMap::new();
    let mut count = |pass: &Pass, own: bool| {
        let key = (pass.function.clone(), pass.who.clone(), own);
        let count = counts.entry(key).or_default();
        *count += 1;
        *count
    };
    let mut kept: HashMap<(String, Who, bool), u32> = HashMap::new();
    passes
        .filter_map(|mut pass| {
            let of_all = count(&pass, false);
            pass.occurrence = match pass.own {
                true => count(&pass, true),
                false => of_all,
            };
            let key = (pass.function.clone(), pass.who.clone(), pass.own);
            let kept = kept.entry(key).or_default();
            *kept += 1;
            (*kept <= KEPT).then_some(pass)
        })
        .collect()
}

/// Actors that waited in vain for the gate.
pub fn in_vain(episode: &Episode, tag: &str, failed: impl Fn(usize, usize) -> bool) -> Vec<String> {
    let actors = episode.actors.iter().enumerate();
    let waited = actors.filter(|(part, actor)| {
        actor.steps.iter().enumerate().any(|(at, step)| {
            matches!(step, Step::AwaitGate { tag: it, .. } if it == tag) && failed(*part, at)
        })
    });
    waited.map(|(_, actor)| actor.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_s_line_tells_who_was_held_how_long() {
        let mut report = GateReport {
            tag: "g".into(),
            unarmed: None,
            calls: 0,
            hold: None,
            waited: Vec::new(),
        };
        let names = HashMap::from([(57, "rmmod")]);
        let states = "0 idle 0 0 0 preempted 0 released\n12 over 2 57 100 spun 200 deadline\n";
        let line = line_of(states, 12).expect("a line");
        fill(&mut report, line, &names).expect("whole");
        assert_eq!(report.calls, 2);
        let hold = report.hold.expect("held");
        assert_eq!(
            (hold.who.as_str(), hold.ns, hold.left_ns),
            ("rmmod", 100, 200)
        );
        assert_eq!((hold.how, hold.why), (How::Spun, Why::Deadline));
        assert_eq!(line_of(states, 2), None);
    }

    #[test]
    fn a_pass_tells_who_and_whether_it_can_be_held() {
        let functions = HashMap::from([(3, "kfree")]);
        let names = HashMap::from([(57, "holder")]);
        let parse = |line| pass(line, &functions, &names).expect("a pass");
        let it = parse("3 57 9 -o");
        assert_eq!(
            (it.who, it.own, it.holdable),
            (Who::Actor("holder".into()), true, true)
        );
        assert_eq!(parse("3 57 9 -oia").who, Who::Anybody);
        let it = parse("3 8 9 -owa");
        assert_eq!((it.who, it.holdable), (Who::Worker, false));
        assert!(pass("4 57 9 -", &functions, &names).is_none());
    }

    #[test]
    fn a_survey_tells_the_first_calls_with_their_number() {
        let functions = HashMap::from([(3, "kfree")]);
        let names = HashMap::from([(57, "holder")]);
        let lines = [
            "3 57 1 -",
            "3 57 2 -o",
            "3 8 3 -ow",
            "3 57 4 -",
            "3 57 5 -o",
        ];
        let passes = lines.map(|line| pass(line, &functions, &names).expect("a pass"));
        let told: Vec<_> = (first_few(passes.into_iter()).iter())
            .map(|pass| (pass.ns, pass.occurrence))
            .collect();
        assert_eq!(told, [(1, 1), (2, 1), (3, 1), (4, 3), (5, 2)]);
        let many = (0..9).map(|_| pass("3 57 1 -", &functions, &names).expect("a pass"));
        assert_eq!(first_few(many).len(), KEPT as usize);
    }
}
