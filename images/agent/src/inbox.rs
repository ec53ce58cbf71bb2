//! Lines from the host, of bounded length.

use std::io::{self, BufRead};

use knobrig_proto::MAX_LINE;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its newline.
    Text(String),
    /// More than [`MAX_LINE`] bytes, skipped up to the next newline.
    TooLong,
    /// Not UTF-8.
    NotText,
    /// The other end is gone.
    End,
}

/// Reads the next line.
///
/// # Errors
/// Those of the stream.
pub fn read_line(from: &mut impl BufRead) -> io::Result<Line> {
    let mut bytes = Vec::new();
    let mut too_long = false;
    loop {
        let chunk = match from.fill_buf() {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return Ok(Line::End);
        }
        let newline = chunk.iter().position(|&byte| byte == b'\n');
        let taken = newline.unwrap_or(chunk.len());
        too_long |= bytes.len() + taken > MAX_LINE;
        if !too_long {
            bytes.extend_from_slice(&chunk[..taken]);
        }
        from.consume(newline.map_or(taken, |at| at + 1));
        if newline.is_some() {
            break;
        }
    }
    Ok(match String::from_utf8(bytes) {
        _ if too_long => Line::TooLong,
        Ok(text) => Line::Text(text),
        Err(_) => Line::NotText,
    })
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole() {
        let mut bytes = vec![b'x'; MAX_LINE + 1];
        bytes.extend_from_slice(b"\nnext\n");
        // A small buffer: lines come in many pieces, as from the port.
        let mut from = BufReader::with_capacity(4096, bytes.as_slice());
        assert_eq!(read_line(&mut from).expect("memory reads"), Line::TooLong);
        assert_eq!(
            read_line(&mut from).expect("memory reads"),
            Line::Text("next".into())
        );
        assert_eq!(read_line(&mut from).expect("memory reads"), Line::End);
    }

    #[test]
    fn a_line_of_the_longest_length_is_read() {
        let mut bytes = vec![b'x'; MAX_LINE];
        bytes.push(b'\n');
        let line = read_line(&mut bytes.as_slice()).expect("memory reads");
        assert!(matches!(line, Line::Text(text) if text.len() == MAX_LINE));
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        assert_eq!(
            read_line(&mut &b"\xff\n"[..]).expect("memory reads"),
            Line::NotText
        );
    }
}
