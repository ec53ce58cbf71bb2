//! `knobrig target`: what targets there are, what one says, whether a file is right, and a first
//! file for a driver.

use super::run::say;
use crate::cli::target::TargetCommand;
use crate::error::Error;
use crate::exit::Exit;
use crate::target::{Chosen, Target};

mod new;

/// Runs the verb.
///
/// # Errors
/// A target that is not there or not right; for `new`, a module that can't be used, too.
pub fn run(command: &TargetCommand) -> Result<Exit, Error> {
    match command {
        TargetCommand::List => list(),
        TargetCommand::Show { target } => {
            // Found first: what is shown is right.
            Chosen::find(target, None, None)?;
            say(&Target::text(target)?)
        }
        TargetCommand::Check { targets } => targets.iter().try_for_each(|target| check(target)),
        TargetCommand::Schema => say(&Target::schema()),
        TargetCommand::New(arguments) => return new::run(arguments),
    }
    .map(|()| Exit::Clean)
}

fn list() -> Result<(), Error> {
    for name in Target::built_in() {
        let target = Chosen::find(name, None, None)?.target;
        say(&format!("{name:<14}{}\n", target.about))?;
    }
    Ok(())
}

fn check(target: &str) -> Result<(), Error> {
    let chosen = Chosen::find(target, None, None)?;
    let about = &chosen.target;
    let names = |all: Vec<&str>| all.join(", ");
    let teardowns = std::iter::once(about.teardown.name.as_str())
        .chain(about.teardown.others.iter().map(|way| way.name.as_str()));
    say(&format!(
        "{target}: right. {}: {}\n  modules    {}\n  knobs      {}\n  teardowns  {}\n  lifetimes  {}\n",
        about.name,
        about.about,
        names(about.modules.iter().map(|it| it.name.as_str()).collect()),
        names(about.knobs.iter().map(|it| it.name.as_str()).collect()),
        names(teardowns.collect()),
        names(about.lifetimes.iter().map(|it| it.name.as_str()).collect()),
    ))
}
