//! Decisions: what an episode does, whether it went wrong, what a run found. Pure functions
//! over plain data; nothing here touches a process, a socket, a file or a clock.

pub mod bandit;
pub mod explored;
pub mod finding;
pub mod oracle;
pub mod plan;
pub mod record;
pub mod reproducer;
pub mod statistics;
pub mod summary;
pub mod timeline;
