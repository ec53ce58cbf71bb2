//! What the command line can ask for, one file each.

pub mod bench;
mod campaign;
pub mod doctor;
pub mod gallery;
pub mod image;
pub mod lifetimes;
pub mod minimize;
pub mod prepare;
pub mod report;
pub mod repro;
pub mod run;
pub mod test;
