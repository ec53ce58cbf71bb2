//! Findings: failures with the same key are one, with a count.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dk_control::{Event, Suspicion};
use knobrig_klog::{Report, Waits};
use serde::{Deserialize, Serialize};

use super::oracle::{How, Violation};
use super::plan::{Plan, Rule};
use super::record::Record;
use super::reproducer;

/// Version of finding.json. Version 1 had the episode in itself.
pub const VERSION: u32 = 2;
/// What all failures share in which something pins less than it should.
const PINS_TOO_LITTLE: &str = "rule counts: what should pin the module does not";
/// Other titles that a finding keeps.
const MOST_TITLES: usize = 16;

/// What decided that an episode went wrong, with its evidence.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "oracle", rename_all = "kebab-case")]
pub enum Evidence {
    /// The kernel reported it.
    Kernel {
        /// The report.
        report: Box<Report>,
    },
    /// A rule of the target was broken, or something did not return.
    Rule {
        /// How.
        violation: Violation,
    },
    /// The device saw what no driver may do.
    Witness {
        /// What.
        what: Suspicion,
        /// Indices, addresses, what was expected and what was there.
        detail: String,
    },
    /// The guest is gone, and its kernel said nothing.
    Guest {
        /// How.
        #[serde(default)]
        end: GuestEnd,
        /// What was awaited and what was seen last.
        why: String,
    },
}

/// How a guest ends without a report of its kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestEnd {
    /// It reset or shut itself down.
    Reset,
    /// Its QEMU runs, and nothing comes from it.
    #[default]
    Silent,
}

impl Evidence {
    /// One line that a person recognises the failure by.
    pub fn title(&self) -> String {
        match self {
            Self::Kernel { report } => report.title.clone(),
            Self::Rule {
                violation: Violation {
                    rule: None, step, ..
                },
            } => {
                format!("liveness: {step} did not return")
            }
            Self::Rule {
                violation:
                    Violation {
                        rule: Some(rule),
                        step,
                        detail,
                        ..
                    },
            } => {
                format!("rule {}: {step}: {detail}", kebab(rule))
            }
            Self::Witness { what, .. } => format!("witness: {}", suspicion(*what)),
            Self::Guest { end, .. } => match end {
                GuestEnd::Reset => "guest reset without a word".into(),
                GuestEnd::Silent => "guest fell silent".into(),
            },
        }
    }

    /// What the device witnessed.
    pub fn witnessed(event: Event) -> Option<Self> {
        match event {
            Event::Witness { what, detail, .. } => Some(Self::Witness { what, detail }),
            Event::Held { .. } | Event::LetGo { .. } => None,
        }
    }

    /// Which oracle speaks.
    pub fn oracle(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "kernel",
            Self::Rule {
                violation: Violation { rule: None, .. },
            } => "liveness",
            Self::Rule { .. } => "rule",
            Self::Witness { .. } => "witness",
            Self::Guest { .. } => "guest",
        }
    }

    /// What equal failures share, whatever their seed.
    pub fn key(&self) -> String {
        match self {
            Self::Kernel { report } => kernel_key(report),
            Self::Rule { violation } => violation_key(violation),
            Self::Witness { what, .. } => format!("witness {}", kebab(what)),
            Self::Guest { end, .. } => format!("guest {}", kebab(end)),
        }
    }

    /// What the failure is known by.
    pub fn name(&self) -> Name {
        Name {
            title: self.title(),
            key: self.key(),
        }
    }

    /// The evidence in its own words.
    pub fn text(&self) -> String {
        match self {
            Self::Kernel { report } => report.text.clone(),
            Self::Rule { violation } => format!("{}: {}\n", violation.step, violation.detail),
            Self::Witness { what, detail } => format!("{}: {detail}\n", suspicion(*what)),
            Self::Guest { why, .. } => format!("{why}\n"),
        }
    }
}

/// What an episode without a report in the log came to, what says most first: that is what names
/// the failure.
pub fn evidence(
    violations: Vec<Violation>,
    witnessed: Vec<Event>,
    leaks: Vec<Report>,
) -> Vec<Evidence> {
    let rule = |violation| Evidence::Rule { violation };
    // A broken rule breaks others; the first names the failure.
    let violation = violations.into_iter().next();
    // What the device sees of a driver that never stopped it follows from that.
    let (stop, others): (Vec<_>, Vec<_>) =
        (violation.into_iter()).partition(|it| it.rule == Some(Rule::DeviceStopped));
    let mut evidence: Vec<_> = stop.into_iter().map(rule).collect();
    evidence.extend(witnessed.into_iter().filter_map(Evidence::witnessed));
    evidence.extend(others.into_iter().map(rule));
    let leaks = leaks.into_iter().map(Box::new);
    evidence.extend(leaks.map(|report| Evidence::Kernel { report }));
    evidence
}

/// What a failure is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// One line.
    pub title: String,
    /// What equal failures share.
    pub key: String,
}

impl Name {
    /// Whether both are of one bug, as far as they tell.
    pub fn may_be(&self, other: &Self) -> bool {
        self.key == other.key || self.tells_less(other) || other.tells_less(self)
    }

    /// Whether a replay of this that shows the other shows the same bug: a deadlock in the driver is seen
    /// from this side or from that, by who is late first.
    pub fn is_shown_by(&self, other: &Self) -> bool {
        let hangs = |name: &Self| name.key.starts_with(DRIVER_HANGS);
        self.may_be(other) || hangs(self) && hangs(other)
    }

    /// Whether something waits for what never comes.
    pub fn hangs(&self) -> bool {
        self.is_told_by_a_deadline() || self.title.starts_with("INFO: task hung")
    }

    /// Whether it is the rig's deadline that tells that something hangs, and not the kernel.
    pub fn is_told_by_a_deadline(&self) -> bool {
        self.key.starts_with(LIVENESS)
    }

    /// Whether an episode of this plan can show it: what is not checked can't be broken.
    pub fn may_come_of(&self, plan: &Plan) -> bool {
        let Some(broken) = self.key.strip_prefix("rule ") else {
            return true;
        };
        let pins = self.key == PINS_TOO_LITTLE;
        let is_it = |rule: Rule| {
            broken.starts_with(&kebab(&rule)) || pins && rule == Rule::RefusedWhilePinned
        };
        // Each episode's end is judged by that.
        is_it(Rule::DeviceStopped) || plan.checks.iter().any(|check| is_it(check.rule))
    }

    /// Whether this may be of the other's bug, but tells less of it.
    fn tells_less(&self, than: &Self) -> bool {
        let [key, whole] = [self, than].map(|name| name.key.strip_prefix(KERNEL));
        let both = key.zip(whole);
        both.is_some_and(|(key, whole)| knobrig_klog::tells_less(key, whole, &than.title))
    }
}

/// Begins the keys of what the kernel reported.
const KERNEL: &str = "kernel ";
/// Begins the keys of what did not return.
const LIVENESS: &str = "liveness ";
/// And of these, where it waits in a function of the driver's.
const DRIVER_HANGS: &str = "liveness in ";

fn kernel_key(report: &Report) -> String {
    match report.waits_in().filter(|it| it.in_module) {
        // Whether the kernel says so first, or whoever waited for it, is chance.
        Some(waits) => driver_hangs(&waits),
        None => format!("{KERNEL}{}", report.key),
    }
}

/// What is waited for tells one endless teardown from another; in a driver's own function that is
/// enough, whoever waits.
fn driver_hangs(waits: &Waits) -> String {
    format!("{DRIVER_HANGS}{}", waits.function)
}

fn violation_key(violation: &Violation) -> String {
    let step = &violation.step;
    let mut key = match &violation.rule {
        // Which of the paths that go with the device is looked at first, is chance.
        Some(rule @ (Rule::KnobsFirst | Rule::EachKnobFirst)) => format!("rule {}", kebab(rule)),
        // Whether the count is looked at first, or tried, is chance.
        Some(Rule::RefusedWhilePinned) if violation.how == Some(How::NotRefused) => {
            return PINS_TOO_LITTLE.into();
        }
        Some(Rule::Counts) if violation.how == Some(How::TooFew) => return PINS_TOO_LITTLE.into(),
        Some(rule) => format!("rule {} {step}", kebab(rule)),
        None => match knobrig_klog::waits_in(&violation.detail) {
            Some(waits) if waits.in_module => driver_hangs(&waits),
            Some(waits) => format!("liveness {step} in {}", waits.function),
            None => format!("liveness {step}"),
        },
    };
    if let Some(how) = &violation.how {
        key.push_str(match how {
            How::TooMany => ": too many",
            How::TooFew => ": too few",
            How::NotRefused => ": not refused",
        });
    }
    key
}

fn suspicion(what: Suspicion) -> &'static str {
    match what {
        Suspicion::UsedRingOverwritten => "the used ring was overwritten while the device ran",
        Suspicion::AvailableRingOverwritten => {
            "the available ring was overwritten while the device ran"
        }
        Suspicion::RequestOverwritten => "a request's descriptors were overwritten in flight",
        Suspicion::KickedWhileStopped => "a kick after the device was reset",
    }
}

/// The name by which a word of ours stands in JSON.
pub(crate) fn kebab<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

/// Where a finding was first met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Which guest of the run, from 1.
    pub guest: u64,
    /// Which episode of the run, from 1; absent where no episode ran.
    pub episode: Option<u64>,
    /// Milliseconds since that guest's first episode began.
    pub guest_ms: u64,
}

/// What a run's findings share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The target.
    pub target: String,
    /// Its file, where it is not built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_file: Option<PathBuf>,
    /// The directories of modules that took the place of the target's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub module_dirs: Vec<PathBuf>,
    /// Its lifetime.
    pub lifetime: String,
    /// Its mutant.
    pub mutant: Option<String>,
    /// The seed.
    pub seed: u64,
    /// Id of the kernel image.
    pub kernel: String,
    /// What the guest was.
    #[serde(default)]
    pub guest: GuestKind,
}

/// What a finding's guest was, beside its kernel's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestKind {
    /// The kernel's variant.
    pub variant: String,
    /// vCPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl Default for GuestKind {
    /// What a guest is that nobody asked to be otherwise.
    fn default() -> Self {
        Self {
            variant: "kasan".into(),
            cpus: 2,
            memory_mib: 512,
        }
    }
}

/// A deduplicated failure, with its evidence and what replays it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// [`VERSION`].
    pub version: u32,
    /// Its number in the run, from 1; its directory's name.
    pub number: usize,
    /// One line.
    pub title: String,
    /// Other titles under which the same was met: which file of the driver showed it, by a read or
    /// a write, is chance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alt_titles: Vec<String>,
    /// What equal failures share.
    pub key: String,
    /// Times met in this run.
    pub count: u64,
    /// The first time.
    pub first: Met,
    /// The time of which all that follows is, where it isn't the first: that one met by chance what
    /// this one placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Met>,
    /// Of the run.
    pub setting: Setting,
    /// What was seen.
    pub evidence: Evidence,
    /// The oracles that spoke, that of the evidence first.
    pub oracles: Vec<String>,
    /// What the others had to say, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The file beside it that has the episode; absent where it was met before one ran.
    #[serde(default)]
    pub reproducer: Option<String>,
    /// The episode that it came of, whole: actors, ops, gate, checks. It stands in
    /// [`reproducer::FILE`].
    #[serde(default, skip_serializing)]
    pub episode: Option<Plan>,
    /// How that episode went.
    #[serde(default)]
    pub record: Option<Record>,
}

impl Finding {
    /// Its episode meets it again only by chance, or there is none.
    fn is_by_chance(&self) -> bool {
        let episode = self.episode.as_ref();
        episode.is_none_or(|plan| plan.shape.by_chance())
    }

    /// What it is known by.
    fn name(&self) -> Name {
        Name {
            title: self.title.clone(),
            key: self.key.clone(),
        }
    }

    /// The same, met again. What shows it for certain is worth more than what came first, and so is
    /// what tells more of it.
    fn with(mut self, now: Self) -> Self {
        let places = self.is_by_chance() && !now.is_by_chance();
        let as_sure = self.is_by_chance() == now.is_by_chance();
        let tells_more = self.name().tells_less(&now.name());
        if tells_more {
            self.key = now.key;
        }
        if places || tells_more && as_sure {
            self.placed = Some(now.first);
            self.evidence = now.evidence;
            self.oracles = now.oracles;
            self.also = now.also;
            self.reproducer = now.reproducer;
            self.episode = now.episode;
            self.record = now.record;
        }
        self
    }
}

/// The findings of a run.
#[derive(Debug, Default)]
pub struct Findings {
    by_key: BTreeMap<String, Finding>,
}

impl Findings {
    /// Those of a run that goes on.
    pub fn of(findings: Vec<Finding>) -> Self {
        let by_key = findings.into_iter().map(|it| (it.key.clone(), it));
        Self {
            by_key: by_key.collect(),
        }
    }

    /// Takes a failure in: the evidence that names it, and what other oracles said of the same
    /// episode. Gives the finding that it is, new or counted up.
    pub fn add(
        &mut self,
        evidence: Evidence,
        others: &[Evidence],
        first: Met,
        setting: &Setting,
        episode: Option<&Plan>,
        record: Option<Record>,
    ) -> &Finding {
        let number = self.by_key.len() + 1;
        let name = evidence.name();
        let mut oracles = vec![evidence.oracle().to_owned()];
        for other in others {
            if !oracles.iter().any(|it| it == other.oracle()) {
                oracles.push(other.oracle().to_owned());
            }
        }
        let now = Finding {
            version: VERSION,
            number,
            title: name.title.clone(),
            alt_titles: Vec::new(),
            key: name.key.clone(),
            count: 0,
            first,
            placed: None,
            setting: setting.clone(),
            evidence,
            oracles,
            also: others.iter().map(Evidence::title).collect(),
            reproducer: episode.map(|_| reproducer::FILE.to_owned()),
            episode: episode.cloned(),
            record,
        };
        let key = self.known_as(&name).map(str::to_owned);
        let before = key.and_then(|key| self.by_key.remove(&key));
        let mut finding = match before {
            None => now,
            Some(before) => before.with(now),
        };
        let known = finding.title == name.title || finding.alt_titles.contains(&name.title);
        if !known && finding.alt_titles.len() < MOST_TITLES {
            finding.alt_titles.push(name.title);
        }
        finding.count += 1;
        self.by_key.entry(finding.key.clone()).or_insert(finding)
    }

    /// The key under which a failure is known: its own, or that of the first finding that may be the
    /// same and tells less or more. Freed memory is freed memory; of a fault in the same function
    /// that is not sure.
    fn known_as(&self, name: &Name) -> Option<&str> {
        if let Some((key, _)) = self.by_key.get_key_value(&name.key) {
            return Some(key);
        }
        let freed = |title: &str| title.contains("use-after-free");
        if !freed(&name.title) {
            return None;
        }
        let may_be = |it: &&Finding| freed(&it.title) && it.name().may_be(name);
        let first = self.all().into_iter().find(may_be);
        first.map(|finding| finding.key.as_str())
    }

    /// Whether a report of this episode would be kept: it is new, places what was met by chance, or
    /// tells more.
    pub fn keeps(&self, report: &Report, episode: Option<&Plan>) -> bool {
        let places = episode.is_some_and(|plan| !plan.shape.by_chance());
        let name = Name {
            title: report.title.clone(),
            key: kernel_key(report),
        };
        let known = (self.known_as(&name)).and_then(|key| self.by_key.get(key));
        known.is_none_or(|finding| {
            places && finding.is_by_chance() || finding.name().tells_less(&name)
        })
    }

    /// All, by number.
    pub fn all(&self) -> Vec<&Finding> {
        let mut all: Vec<_> = self.by_key.values().collect();
        all.sort_by_key(|finding| finding.number);
        all
    }
}

#[cfg(test)]
mod observed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::plan::{Points, Shape, plan};
    use crate::target::Chosen;

    fn met(episode: u64) -> Met {
        Met {
            guest: 1,
            episode: Some(episode),
            guest_ms: 5,
        }
    }

    fn setting() -> Setting {
        Setting {
            target: "t".into(),
            lifetime: "l".into(),
            mutant: None,
            seed: 1,
            kernel: "k".into(),
            ..Setting::default()
        }
    }

    fn violation(step: &str) -> Evidence {
        let violation = Violation {
            rule: Some(Rule::Counts),
            step: step.into(),
            detail: "expected the text \"1\", read \"2\"".into(),
            how: None,
        };
        Evidence::Rule { violation }
    }

    #[test]
    fn a_rule_that_is_not_checked_can_t_be_broken() {
        let target = Chosen::find("mydrv", Some("pinned"), None).expect("built in");
        let whole = plan(&target, &Points::default(), 1, 1, &[Shape::Counts]);
        let free = Plan {
            checks: Vec::new(),
            ..whole.clone()
        };
        let name = |key: &str| Name {
            title: "it".into(),
            key: key.into(),
        };
        for (key, of_whole, of_free) in [
            ("rule counts read refcnt: too many", true, false),
            (PINS_TOO_LITTLE, true, false),
            ("rule knobs-first", false, false),
            ("rule device-stopped the episode's end", true, true),
            ("kernel use-after-free in f", true, true),
            ("liveness unload mydrv", true, true),
        ] {
            assert_eq!(name(key).may_come_of(&whole), of_whole, "{key}");
            assert_eq!(name(key).may_come_of(&free), of_free, "{key}");
        }
        assert!(name("liveness unload mydrv").hangs());
        let (show, teardown) = (name("liveness in m::show"), name("liveness in m::teardown"));
        assert!(show.is_shown_by(&teardown) && !show.may_be(&teardown));
        assert!(!show.is_shown_by(&name("liveness unload mydrv in msleep")));
        assert!(!name("rule counts read refcnt").hangs());
    }

    #[test]
    fn equal_failures_are_one_finding_that_keeps_the_first() {
        let setting = setting();
        let mut findings = Findings::default();
        findings.add(violation("read refcnt"), &[], met(3), &setting, None, None);
        let again = findings.add(violation("read refcnt"), &[], met(9), &setting, None, None);
        assert_eq!((again.count, again.first.episode), (2, Some(3)));
        findings.add(violation("open x"), &[], met(4), &setting, None, None);
        let numbers: Vec<_> = findings
            .all()
            .iter()
            .map(|finding| finding.number)
            .collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn an_episode_that_places_it_stands_in_for_one_that_met_it_by_chance() {
        let target = Chosen::find("mydrv", Some("drained"), None).expect("built in");
        let plan = |shape| plan(&target, &Points::default(), 1, 1, &[shape]);
        let shapes = [Shape::Birth, Shape::Gated, Shape::Stress];
        let mut findings = Findings::default();
        for (episode, shape) in (1..).zip(shapes) {
            let plan = plan(shape);
            findings.add(
                violation("a"),
                &[],
                met(episode),
                &setting(),
                Some(&plan),
                None,
            );
        }
        let all = findings.all();
        assert_eq!((all.len(), all[0].count, &all[0].first), (1, 3, &met(1)));
        assert_eq!(all[0].placed, Some(met(2)));
        assert_eq!(
            all[0].episode.as_ref().map(|it| it.shape),
            Some(Shape::Gated)
        );
    }

    const FREED_IN_REMOVE: &str =
        "Freed by task 9:\n kfree+0x1/0x2\n mydrv_remove+0x1/0x2 [mydrv]\n unbind_store+0x1/0x2\n";

    fn use_after_free(function: &str, freed: &str) -> Evidence {
        let log = format!(
            "BUG: KASAN: slab-use-after-free in {function}+0x12/0x40 [mydrv]\n\
             Read of size 8 at addr ffff888100000008 by task cat/77\n\
             Call Trace:\n {function}+0x12/0x40 [mydrv]\n vfs_read+0x1/0x2\n{freed}"
        );
        let report = Box::new(knobrig_klog::parse(log.as_bytes()).remove(0));
        Evidence::Kernel { report }
    }

    #[test]
    fn who_touches_what_is_being_freed_tells_less_of_the_same_bug() {
        let half = "Freed by task 9:\n kfree+0x1/0x2\n mydrv_remove+0x1/0x2 [mydrv]\n";
        let tells = ["", half, FREED_IN_REMOVE];
        let whole = use_after_free("knob0_show", FREED_IN_REMOVE).key();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
            let mut findings = Findings::default();
            for which in order {
                let evidence = use_after_free("knob0_show", tells[which]);
                findings.add(evidence, &[], met(1), &setting(), None, None);
            }
            let [finding] = &findings.all()[..] else {
                panic!("one finding, not {:?}", findings.all());
            };
            assert_eq!((finding.count, &finding.key), (3, &whole), "{order:?}");
            assert_eq!(finding.evidence.key(), whole, "{order:?}");
            let elsewhere = use_after_free("knob1_store", "");
            findings.add(elsewhere, &[], met(2), &setting(), None, None);
            assert_eq!(findings.all().len(), 2, "{order:?}");
        }
    }

    #[test]
    fn a_bug_that_shows_in_several_functions_is_one_finding_with_their_titles() {
        let uaf = |function| use_after_free(function, FREED_IN_REMOVE);
        let setting = setting();
        let mut findings = Findings::default();
        for function in ["knob0_show", "knob1_store", "knob0_show", "knob1_store"] {
            findings.add(uaf(function), &[], met(1), &setting, None, None);
        }
        let [finding] = &findings.all()[..] else {
            panic!("one finding, not {:?}", findings.all());
        };
        assert_eq!(finding.count, 4);
        assert_eq!(
            finding.title,
            "KASAN: slab-use-after-free Read in knob0_show"
        );
        assert_eq!(
            finding.alt_titles,
            ["KASAN: slab-use-after-free Read in knob1_store"]
        );
    }

    #[test]
    fn what_an_endless_step_waits_for_tells_it_from_another() {
        let stuck = |stack: &str| Evidence::Rule {
            violation: Violation {
                rule: None,
                step: "unload mydrv".into(),
                detail: format!("rmmod did not return within 9 ms (state D):\n{stack}"),
                how: None,
            },
        };
        let drain = stuck("[<0>] kernfs_drain+0x1/0x2\n[<0>] mydrv_exit+0x1/0x2 [mydrv]");
        let release = stuck("[<0>] wait_for_releases+0x1/0x2 [mydrv]\n");
        assert_eq!(drain.key(), "liveness in mydrv_exit");
        assert_ne!(drain.key(), release.key());
    }

    #[test]
    fn too_many_and_too_few_of_a_count_are_two_bugs_and_so_is_what_was_not_refused() {
        let key = |how| {
            let Evidence::Rule { violation } = violation("read refcnt") else {
                panic!("a rule");
            };
            violation_key(&Violation { how, ..violation })
        };
        assert_eq!(key(None), "rule counts read refcnt");
        assert_eq!(key(Some(How::TooMany)), "rule counts read refcnt: too many");
        assert_eq!(key(Some(How::TooFew)), PINS_TOO_LITTLE);
        assert_eq!(
            key(Some(How::NotRefused)),
            "rule counts read refcnt: not refused"
        );
    }

    #[test]
    fn a_title_says_rule_step_and_result() {
        assert_eq!(
            violation("read refcnt").title(),
            "rule counts: read refcnt: expected the text \"1\", read \"2\""
        );
    }

    #[test]
    fn a_device_that_was_never_stopped_names_what_it_does_then() {
        let violation = |rule| Violation {
            rule: Some(rule),
            step: "the end".into(),
            detail: String::new(),
            how: None,
        };
        let witness = || Event::Witness {
            ns: 1,
            what: Suspicion::UsedRingOverwritten,
            detail: String::new(),
        };
        let first = |rule| evidence(vec![violation(rule)], vec![witness()], Vec::new())[0].oracle();
        assert_eq!(first(Rule::DeviceStopped), "rule");
        assert_eq!(first(Rule::Counts), "witness");
    }
}
