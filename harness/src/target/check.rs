//! What in a target contradicts itself.

use super::errno::{self, errno};
use super::read::{Spot, Wrong, did_you_mean};
use super::{AskingOp, Data, Knob, KnobKind, Loops, Payload, Target};

fn wrong(table: &'static str, name: &str, key: &'static str, what: String) -> Wrong {
    let spot = Spot {
        table,
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        key: Some(key).filter(|key| !key.is_empty()),
    };
    Wrong { spot, what }
}

impl Target {
    /// Looks for contradictions.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        self.check_modules()?;
        self.knobs.iter().try_for_each(check_knob)?;
        self.check_detours()?;
        self.check_teardowns()?;
        self.check_lifetimes()?;
        let is_knob = |name: &String| self.knobs.iter().any(|knob| knob.name == *name);
        if let Some(rule) = &self.rules.knobs_first
            && let Some(name) = rule.knobs.iter().find(|name| !is_knob(name))
        {
            let what = format!("rules: knobs_first {name}, no [[knob]]");
            return Err(wrong("rules", "", "knobs_first", what));
        }
        if self.cpus.is_some_and(|cpus| !(2..=8).contains(&cpus)) {
            let what = "cpus: 2 to 8 are possible".to_owned();
            return Err(wrong("cpus", "", "", what));
        }
        self.loops
            .iter()
            .try_for_each(|loops| self.check_loops(loops))
    }

    fn check_loops(&self, loops: &Loops) -> Result<(), Wrong> {
        const MOST: usize = 64;
        let most = [loops.threads, loops.spinners, loops.plain.len()];
        if loops.threads == 0 || most.into_iter().any(|count| count > MOST) {
            let what = format!(
                "loops: 1 to {MOST} threads, up to {MOST} spinners and up to {MOST} plain loops \
                 are possible"
            );
            return Err(wrong("loops", "", "", what));
        }
        let of_a_hundred = [
            ("share", loops.share),
            ("teardowns", loops.teardowns),
            ("together", loops.together),
            ("priorities", loops.priorities),
            ("interrupted", loops.interrupted),
            ("rests", loops.rests),
        ];
        if let Some((key, _)) = of_a_hundred.into_iter().find(|(_, share)| *share > 100) {
            let what = format!("loops: {key} is of a hundred: 0 to 100 are possible");
            return Err(wrong("loops", "", key, what));
        }
        let knobs = self.knobs.iter().map(|knob| knob.name.as_str());
        let ways = self.teardown.others.iter().map(|way| way.name.as_str());
        let known: Vec<_> = knobs.chain(ways).collect();
        if let Some(name) = (loops.plain.iter()).find(|name| !known.contains(&name.as_str())) {
            let hint = did_you_mean(name, known.into_iter());
            let what = format!(
                "loops: plain {name}, no [[knob]] and no [[teardown]] beside the unload{hint}"
            );
            return Err(wrong("loops", "", "plain", what));
        }
        Ok(())
    }

    fn check_modules(&self) -> Result<(), Wrong> {
        let is_lifetime = |name: &String| self.lifetimes.iter().any(|it| it.name == *name);
        for module in &self.modules {
            let sources = usize::from(module.build.is_some())
                + usize::from(module.path.is_some())
                + usize::from(module.kernel);
            if sources != 1 {
                let what = format!(
                    "module {}: give exactly one of build, path and kernel = true",
                    module.name
                );
                return Err(wrong("module", &module.name, "", what));
            }
            if let Some(name) = module.lifetimes.iter().find(|name| !is_lifetime(name)) {
                let what = format!("module {}: no lifetime {name}", module.name);
                return Err(wrong("module", &module.name, "lifetimes", what));
            }
        }
        if let Some(mutant) = (self.mutants.iter()).find(|it| !is_lifetime(&it.lifetime)) {
            let what = format!("mutant {}: no lifetime {}", mutant.name, mutant.lifetime);
            return Err(wrong("mutant", &mutant.name, "lifetime", what));
        }
        Ok(())
    }

    fn check_detours(&self) -> Result<(), Wrong> {
        for detour in &self.detours {
            let leads = |route: Option<&String>| route == Some(&detour.route);
            let same = |name: &String| *name == detour.name;
            let others = (self.detours.iter()).filter(|it| !same(&it.name));
            let met = self.knobs.iter().any(|it| leads(it.route.as_ref()))
                || others.into_iter().any(|it| leads(Some(&it.route)));
            if !met {
                let what = format!(
                    "detour {}: nothing else has the route {}: say which knob leads there, too",
                    detour.name, detour.route
                );
                return Err(wrong("detour", &detour.name, "route", what));
            }
            if self.knobs.iter().any(|it| same(&it.name)) {
                let what = format!("detour {}: a [[knob]] is called so, too", detour.name);
                return Err(wrong("detour", &detour.name, "name", what));
            }
            if detour.steps.is_empty() {
                let what = format!("detour {}: no steps: say what is done", detour.name);
                return Err(wrong("detour", &detour.name, "steps", what));
            }
        }
        Ok(())
    }

    fn check_teardowns(&self) -> Result<(), Wrong> {
        let module = &self.teardown.module;
        if !self.modules.iter().any(|it| it.name == *module && !it.once) {
            let what = format!("teardown: {module} is not a [[module]] that each episode loads");
            return Err(wrong("teardown", "", "module", what));
        }
        for way in &self.teardown.others {
            let is_device = |id: &String| id == "dk" || self.devices.iter().any(|it| it.id == *id);
            if let Some(id) = way.id.as_ref().filter(|id| !is_device(id)) {
                let what = format!("teardown {}: no [[device]] {id}", way.name);
                return Err(wrong("teardown", &way.name, "id", what));
            }
            check_errnos("teardown", &way.name, &way.fine)?;
        }
        Ok(())
    }

    fn check_lifetimes(&self) -> Result<(), Wrong> {
        let is_knob = |name: &String| self.knobs.iter().any(|knob| knob.name == *name);
        for lifetime in &self.lifetimes {
            for (key, names) in [("pins", &lifetime.pins), ("exclusive", &lifetime.exclusive)] {
                if let Some(name) = names.iter().find(|name| !is_knob(name)) {
                    let what = format!("lifetime {}: {key} {name}, no [[knob]]", lifetime.name);
                    return Err(wrong("lifetime", &lifetime.name, key, what));
                }
            }
            if lifetime.holds > 0 && lifetime.give_up.is_none() {
                let what = format!(
                    "lifetime {}: holds without give_up: say how the module ever goes",
                    lifetime.name
                );
                return Err(wrong("lifetime", &lifetime.name, "holds", what));
            }
            if lifetime.elsewhere.is_some() && self.elsewhere.is_none() {
                let what = format!(
                    "lifetime {}: elsewhere without [elsewhere]: say how a reference is held",
                    lifetime.name
                );
                return Err(wrong("lifetime", &lifetime.name, "elsewhere", what));
            }
        }
        Ok(())
    }
}

fn check_knob(knob: &Knob) -> Result<(), Wrong> {
    let wrong = |key, what| Err(wrong("knob", &knob.name, key, what));
    let name = &knob.name;
    let Some(kind) = KnobKind::of(&knob.path) else {
        let what = format!(
            "knob {name}: {} is not below /sys, /dev or /proc",
            knob.path
        );
        return wrong("path", what);
    };
    if knob.kind.is_some_and(|wanted| wanted != kind) {
        let what = format!("knob {name}: the path is one of another kind ({kind:?})");
        return wrong("kind", what);
    }
    if knob.read.is_none() && knob.write.is_none() && knob.weights.open == 0 {
        let what = format!("knob {name}: neither read nor write: say what is done to it");
        return wrong("", what);
    }
    let data = knob.write.as_ref().map_or(&[][..], Data::all);
    if knob.write.is_some() && data.is_empty() {
        return wrong(
            "write",
            format!("knob {name}: write has nothing to choose from"),
        );
    }
    for payload in data {
        if payload.longest() > Payload::MOST {
            let what = format!(
                "knob {name}: write has {} characters, at most {} are possible",
                payload.longest(),
                Payload::MOST
            );
            return wrong("write", what);
        }
        if let Payload::Number { min, max } = payload
            && min > max
        {
            return wrong(
                "write",
                format!("knob {name}: write: min {min} is above max {max}"),
            );
        }
    }
    for op in knob.asks.keys() {
        let (op, known) = match op {
            AskingOp::Read => ("read", knob.read.is_some()),
            AskingOp::Write => ("write", knob.write.is_some()),
        };
        if !known {
            let what = format!("knob {name}: asks.{op} without {op}: say what a {op} does");
            return wrong("asks", what);
        }
    }
    check_errnos("knob", name, &knob.fine)
}

fn check_errnos(table: &'static str, name: &str, fine: &[String]) -> Result<(), Wrong> {
    let Some(unknown) = fine.iter().find(|it| errno(it).is_none()) else {
        return Ok(());
    };
    let hint = did_you_mean(unknown, errno::names());
    let what = format!("{table} {name}: no error {unknown}{hint}");
    Err(wrong(table, name, "fine", what))
}
