//! How the builder tells what it does.

use std::time::Duration;

/// Hears of steps that take time. One step at a time: each `begin` has its `end`, unless the
/// step fails.
pub trait Progress: Sync {
    /// A step begins; `estimate` is how long it may take.
    fn begin(&self, step: &str, estimate: Option<Duration>);
    /// The step is so far, from 0 to 1.
    fn update(&self, fraction: f64, detail: &str);
    /// The step is done.
    fn end(&self);
    /// A line that the user should read.
    fn say(&self, line: &str);
}
