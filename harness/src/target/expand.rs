//! What only the guest knows of a target: which files a pattern matches, and what an op costs.

use std::collections::BTreeMap;

use super::{Chosen, Knob, KnobKind, Target, Way};

/// Most knobs that one pattern makes.
const MOST: usize = 64;

/// What a guest told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Each pattern with the paths that it matches.
    pub paths: BTreeMap<String, Vec<String>>,
    /// Nanoseconds of an op, or of a detour, by the name of the knob or detour.
    pub costs: BTreeMap<String, u64>,
}

impl Target {
    /// The patterns in it.
    pub fn patterns(&self) -> Vec<String> {
        let knobs = self.knobs.iter().map(|knob| knob.path.clone());
        let ways = self.teardown.others.iter().filter_map(Way::pattern);
        let mut patterns: Vec<_> = knobs.chain(ways).filter(|it| is_pattern(it)).collect();
        patterns.sort();
        patterns.dedup();
        patterns
    }

    /// The knobs that lead where others lead, too.
    pub fn on_routes(&self) -> impl Iterator<Item = &Knob> {
        self.knobs.iter().filter(|knob| knob.route.is_some())
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

impl Way {
    /// Where its device is looked for, if that is a pattern.
    fn pattern(&self) -> Option<String> {
        let device = self.device.as_ref().filter(|device| is_pattern(device))?;
        Some(match (&self.driver, device.starts_with('/')) {
            (Some(driver), false) => format!("{driver}/{device}"),
            _ => device.clone(),
        })
    }
}

impl Chosen {
    /// The target with its patterns filled in, and of each route only the cheapest knob.
    ///
    /// # Errors
    /// A pattern that matches nothing, or far too much.
    pub fn expand(&self, found: &Found) -> Result<Self, String> {
        let mut whole = self.clone();
        whole.target.knobs = Vec::new();
        for knob in &self.target.knobs {
            whole.target.knobs.extend(expand(knob, found)?);
        }
        for way in &mut whole.target.teardown.others {
            let Some(pattern) = way.pattern() else {
                continue;
            };
            let paths = matches(&pattern, found)?;
            let Some(first) = paths.first() else {
                return Err(format!("teardown {}: nothing matches {pattern}", way.name));
            };
            // By its name on the bus where it was given so.
            way.device = Some(
                match way.device.as_ref().is_some_and(|it| it.starts_with('/')) {
                    true => first.clone(),
                    false => last(first).to_owned(),
                },
            );
        }
        whole.cheapest(&found.costs);
        Ok(whole)
    }

    /// Keeps of each route the knob or detour that costs least.
    fn cheapest(&mut self, costs: &BTreeMap<String, u64>) {
        let target = &mut self.target;
        let knobs = target.knobs.iter();
        let knobs = knobs.filter_map(|it| Some((it.route.as_ref()?, &it.name)));
        let detours = target.detours.iter().map(|it| (&it.route, &it.name));
        let mut best: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for (route, name) in knobs.chain(detours) {
            let mine = (costs.get(name).copied().unwrap_or(u64::MAX), name.clone());
            let entry = best.entry(route.clone()).or_insert_with(|| mine.clone());
            if mine < *entry {
                *entry = mine;
            }
        }
        let is_best = |route: Option<&String>, name: &String| {
            let best = route.and_then(|route| best.get(route));
            best.is_none_or(|(_, best)| best == name)
        };
        (target.knobs).retain(|it| is_best(it.route.as_ref(), &it.name));
        (target.detours).retain(|it| is_best(Some(&it.route), &it.name));
    }
}

fn matches<'a>(pattern: &str, found: &'a Found) -> Result<&'a [String], String> {
    let paths = found.paths.get(pattern).map_or(&[][..], Vec::as_slice);
    match paths.len() {
        0..=MOST => Ok(paths),
        count => Err(format!(
            "{pattern} matches {count} paths, at most {MOST} are possible"
        )),
    }
}

/// A knob as it stands, or one for each path that its pattern matches.
fn expand(knob: &Knob, found: &Found) -> Result<Vec<Knob>, String> {
    if !is_pattern(&knob.path) {
        return Ok(vec![knob.clone()]);
    }
    let of_kind = |path: &&String| {
        knob.kind
            .is_none_or(|kind| KnobKind::of(path) == Some(kind))
    };
    let paths: Vec<_> = matches(&knob.path, found)?.iter().filter(of_kind).collect();
    if paths.is_empty() {
        return Err(format!("knob {}: nothing matches {}", knob.name, knob.path));
    }
    let alone = paths.len() == 1;
    let one = |path: &String| Knob {
        name: match alone {
            true => knob.name.clone(),
            false => format!("{}-{}", knob.name, last(path)),
        },
        path: path.clone(),
        ..knob.clone()
    };
    let mut knobs: Vec<_> = paths.into_iter().map(one).collect();
    // Two directories may have files of one name.
    for at in 1..knobs.len() {
        if knobs[..at]
            .iter()
            .any(|before| before.name == knobs[at].name)
        {
            knobs[at].name = format!("{}-{at}", knobs[at].name);
        }
    }
    Ok(knobs)
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Chosen {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.toml");
        let text = format!(
            "version = 1\nname = \"t\"\nabout = \"a\"\n[[module]]\nname = \"m\"\nkernel = true\n\
             {text}"
        );
        std::fs::write(&path, text).expect("writes");
        Chosen::find(&path.display().to_string(), None, None).unwrap_or_else(|it| panic!("{it}"))
    }

    const RMMOD: &str = "[[teardown]]\nname = \"rmmod\"\nmodule = \"m\"\n";

    #[test]
    fn a_pattern_makes_a_knob_of_each_match() {
        let target = chosen(&format!(
            "[[knob]]\nname = \"k\"\npath = \"/sys/d*/x?\"\nread = 1\n{RMMOD}\
             [[teardown]]\nname = \"unbind\"\nkind = \"unbind\"\ndriver = \"/sys/drv\"\n\
             device = \"virtio*\"\n"
        ));
        assert_eq!(target.target.patterns(), ["/sys/d*/x?", "/sys/drv/virtio*"]);
        let mut found = Found::default();
        let error = target.expand(&found).expect_err("nothing there");
        assert!(error.contains("nothing matches /sys/d*/x?"), "{error}");
        let paths = ["/sys/d1/x1", "/sys/d1/x2", "/sys/d2/x1"].map(str::to_owned);
        found.paths.insert("/sys/d*/x?".into(), paths.to_vec());
        found
            .paths
            .insert("/sys/drv/virtio*".into(), vec!["/sys/drv/virtio1".into()]);
        let whole = target.expand(&found).expect("all is there");
        let names: Vec<_> = whole.knobs().map(|knob| knob.name.as_str()).collect();
        assert_eq!(names, ["k-x1", "k-x2", "k-x1-2"]);
        assert_eq!(
            whole.target.teardown.others[0].device.as_deref(),
            Some("virtio1")
        );
    }

    #[test]
    fn of_a_route_the_cheapest_stays() {
        let knob = |name| {
            format!(
                "[[knob]]\nname = \"{name}\"\npath = \"/sys/{name}\"\nread = 1\nroute = \"r\"\n"
            )
        };
        let detour = "[[detour]]\nname = \"round\"\nroute = \"r\"\n\
                      steps = [{ step = \"unload\", module = \"m\" }]\n";
        let target = chosen(&format!("{}{}{detour}{RMMOD}", knob("dear"), knob("cheap")));
        let kept = |round| {
            let costs = [("dear", 900), ("cheap", 9), ("round", round)];
            let costs = costs.map(|(name, cost)| (name.to_owned(), cost));
            let found = Found {
                costs: costs.into_iter().collect(),
                ..Found::default()
            };
            let whole = target.expand(&found).expect("no patterns");
            let knobs = whole.knobs().map(|knob| knob.name.clone());
            let detours = whole.target.detours.iter().map(|it| it.name.clone());
            knobs.chain(detours).collect::<Vec<_>>()
        };
        assert_eq!(kept(5_000), ["cheap"]);
        assert_eq!(kept(1), ["round"]);
    }
}
