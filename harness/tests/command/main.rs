//! The `knobrig` command, as a user meets it. One program, so that what the files share is used.

mod bad_input;
mod delays;
mod detect;
mod explore;
mod formats;
mod gallery;
mod given;
mod module;
mod order;
mod place;
mod placed;
mod report;
mod repro;
mod run;
mod schema;
mod target;
mod teardown;
