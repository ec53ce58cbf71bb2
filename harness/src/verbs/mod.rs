//! What the command line can ask for, one file each.

pub mod bench;
mod campaign;
pub mod doctor;
mod episodes;
pub mod explore;
pub mod gallery;
pub mod image;
pub mod lifetimes;
mod look;
pub mod minimize;
mod mix;
pub mod prepare;
mod rehearsal;
pub mod report;
pub mod repro;
pub mod run;
mod scratch;
pub mod target;
pub mod test;
mod trials;
