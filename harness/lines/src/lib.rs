//! Messages as lines of JSON: the form that all channels of the rig share. Each channel has its
//! words in a crate of its own, and says there what it is.

use serde::{Deserialize, Serialize};

/// Characters of a bad line that are told.
const TOLD: usize = 200;

/// A line that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read this line {channel} ({why}): {line}")]
pub struct BadLine {
    /// Where it stood: `between harness and agent`.
    pub channel: &'static str,
    /// Its beginning.
    pub line: String,
    /// What was wrong.
    pub why: String,
}

/// One message as a line, newline included.
///
/// # Panics
/// If it can't be JSON: a map whose keys are no strings.
pub fn to_line<T: Serialize>(message: &T) -> String {
    let mut line = serde_json::to_string(message).expect("plain data serializes");
    line.push('\n');
    line
}

/// Reads one line of a channel.
///
/// # Errors
/// [`BadLine`] where it isn't a message of type `T`.
pub fn from_line<'a, T: Deserialize<'a>>(
    channel: &'static str,
    line: &'a str,
) -> Result<T, BadLine> {
    serde_json::from_str(line).map_err(|error| BadLine {
        channel,
        line: line.chars().take(TOLD).collect(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_and_a_bad_line_says_where_it_stood() {
        let line = to_line(&vec![1, 2]);
        assert_eq!(line, "[1,2]\n");
        assert_eq!(from_line::<Vec<u8>>("here", &line).expect("it"), [1, 2]);
        let long = "x".repeat(1_000);
        let bad = from_line::<Vec<u8>>("between a and b", &long).expect_err("no JSON");
        assert!(
            bad.to_string()
                .starts_with("can't read this line between a and b (")
        );
        assert_eq!(bad.line.len(), TOLD);
    }
}
