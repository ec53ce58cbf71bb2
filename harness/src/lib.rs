//! knobrig: races between a driver's files and its teardown, placed, replayed, explained.
//!
//! Data flows one way: target and seed → [`judge::plan`] → [`engine`] (guest and device) →
//! [`judge::oracle`] → [`judge::finding`] → [`report`]. `judge` is pure and never imports the
//! engine.

pub mod cli;
pub mod engine;
pub mod error;
pub mod exit;
pub mod interrupt;
pub mod judge;
pub mod logs;
pub mod report;
pub mod schedule;
pub mod symbols;
pub mod target;
pub mod verbs;
