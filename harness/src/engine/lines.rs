//! Lines from a stream, bounded in length.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines of at most `max` bytes.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, max: usize) -> Self {
        Self {
            reader: BufReader::new(reader),
            line: Vec::new(),
            max,
        }
    }

    /// The next line without its newline; `None` at the end of the stream. A half line at the
    /// end is dropped: its writer died over it.
    ///
    /// # Errors
    /// The stream's, or a line that is too long.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<String>> {
        self.line.clear();
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(bytes.len());
            self.line.extend_from_slice(&bytes[..taken]);
            let consumed = taken + usize::from(end.is_some());
            self.reader.consume(consumed);
            if self.line.len() > self.max {
                let why = format!("a line of more than {} bytes", self.max);
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
            }
            if end.is_some() {
                return Ok(Some(String::from_utf8_lossy(&self.line).into_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_a_half_one_is_dropped() {
        let mut lines = Lines::new(&b"one\ntwo\nhal"[..], 10);
        assert_eq!(lines.next().await.expect("reads"), Some("one".into()));
        assert_eq!(lines.next().await.expect("reads"), Some("two".into()));
        assert_eq!(lines.next().await.expect("reads"), None);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let mut lines = Lines::new(&b"0123456789abcdef"[..], 10);
        assert!(lines.next().await.is_err());
    }
}
