//! `knobrig`: parse, call, exit.

use std::process::ExitCode;

use clap::Parser;
use knobrig::cli::{Cli, Verb};
use knobrig::engine::probe;
use knobrig::exit::Exit;
use knobrig::interrupt;
use knobrig::verbs;

fn main() -> ExitCode {
    let command: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a closed pipe is none either.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Clean
            }
            .into();
        }
    };
    let result = interrupt::watch().and_then(|()| match &cli.verb {
        Verb::Run(arguments) => verbs::run::run(arguments, command),
        Verb::Gallery(arguments) => verbs::gallery::run(arguments, command),
        Verb::Lifetimes(arguments) => verbs::lifetimes::run(arguments, command),
        Verb::Repro(arguments) => verbs::repro::run(arguments, command),
        Verb::Minimize(arguments) => verbs::minimize::run(arguments, command),
        Verb::Explore(arguments) => verbs::explore::run(arguments, command),
        Verb::Report(arguments) => verbs::report::run(arguments),
        Verb::Test(arguments) => verbs::test::run(arguments),
        Verb::Doctor => verbs::doctor::run(),
        Verb::Image(command) => verbs::image::run(command),
        Verb::Target(command) => verbs::target::run(command),
        Verb::Bench(command) => verbs::bench::run(command),
        Verb::ProbeKvm => {
            println!(
                "{}",
                serde_json::to_string(&probe::probe()).unwrap_or_default()
            );
            Ok(Exit::Clean)
        }
    });
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("knobrig: {error}");
            error.exit().into()
        }
    }
}
