//! What the command line can ask for, one file each.

pub mod bench;
pub mod doctor;
pub mod image;
pub mod prepare;
pub mod run;
pub mod test;
