//! What users see and keep of a run: one stream of events, several reporters that read it.

pub mod dir;
pub mod events;
pub mod finding;
pub mod format;
pub mod human;
pub mod picture;
pub mod progress;
pub mod story;
