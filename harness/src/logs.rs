//! Kernel logs from anywhere: files or standard input, plain or compressed, many at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use knobrig_klog::{Reader, Report, Symbols};

use crate::error::Error;

/// Read at once: the parser takes any chunking, and memory stays bounded.
const CHUNK: usize = 256 << 10;

/// What a log says.
#[derive(Clone, Debug)]
pub struct LogReports {
    /// Its name as it was given; `-` is standard input.
    pub file: String,
    /// In the order in which they begin.
    pub reports: Vec<Report>,
    /// What a lack of memory or of the like brought about: told, and no crash.
    pub suppressed: Vec<Report>,
}

/// Reads every log, as many at a time as there are CPUs; the answers stand in the order of the
/// files. `symbols` name what lay in modules that are gone.
pub fn read_all(files: &[PathBuf], symbols: &Arc<dyn Symbols>) -> Vec<Result<LogReports, Error>> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<LogReports, Error>>>> =
        files.iter().map(|_| Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(files.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(index) else {
                        return;
                    };
                    let read = read(file, Arc::clone(symbols));
                    *done[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                }
            });
        }
    });
    (done.into_iter())
        .filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}

fn read(file: &Path, symbols: Arc<dyn Symbols>) -> Result<LogReports, Error> {
    let raw: Box<dyn Read> =
        if file == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(File::open(file).map_err(|why| {
                Error::Usage(format!("can't open the log {}: {why}", file.display()))
            })?)
        };
    let bad = |why: std::io::Error| {
        Error::Machine(format!(
            "failed to read the log {} to its end: {why}; is it cut short?",
            file.display()
        ))
    };
    let mut log = plain(BufReader::with_capacity(CHUNK, raw)).map_err(bad)?;
    let mut reader = Reader::with_symbols(symbols);
    let mut chunk = vec![0; CHUNK];
    loop {
        match log.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => reader.push(&chunk[..len]),
            Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
            Err(why) => return Err(bad(why)),
        }
    }
    let (suppressed, reports) = (reader.finish().into_iter()).partition(|report| report.suppressed);
    Ok(LogReports {
        file: file.display().to_string(),
        reports,
        suppressed,
    })
}

/// The text behind what a file's first bytes say that it is.
fn plain<'a>(mut raw: impl BufRead + 'a) -> std::io::Result<Box<dyn Read + 'a>> {
    let head = raw.fill_buf()?;
    Ok(if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(raw))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(ruzstd::decoding::StreamingDecoder::new(raw).map_err(std::io::Error::other)?)
    } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Box::new(lzma_rust2::XzReader::new(raw, true))
    } else {
        Box::new(raw)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LOG: &str = "[    1.000000] BUG: KASAN: slab-use-after-free in show+0x1/0x2\n\
        [    1.000000] Read of size 8 at addr ffff888100000000 by task a/1\n";

    fn nothing() -> Arc<dyn Symbols> {
        Arc::new(crate::symbols::ModuleSymbols::of(&Default::default()))
    }

    fn titles(bytes: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("log");
        std::fs::write(&path, bytes).expect("writes");
        let read = read_all(&[path], &nothing()).remove(0).expect("reads");
        read.reports.into_iter().map(|it| it.title).collect()
    }

    #[test]
    fn compressed_logs_read_as_plain_ones() {
        let plain = titles(LOG.as_bytes());
        assert_eq!(plain.len(), 1);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(LOG.as_bytes()).expect("compresses");
        assert_eq!(titles(&gz.finish().expect("compresses")), plain);
        let zst = ruzstd::encoding::compress_to_vec(
            LOG.as_bytes(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        assert_eq!(titles(&zst), plain);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1))
            .expect("good options");
        xz.write_all(LOG.as_bytes()).expect("compresses");
        assert_eq!(titles(&xz.finish().expect("compresses")), plain);
    }

    #[test]
    fn a_log_that_is_cut_short_is_told() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(LOG.as_bytes()).expect("compresses");
        let bytes = gz.finish().expect("compresses");
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("log.gz");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        let error = read_all(&[path], &nothing())
            .remove(0)
            .expect_err("half of a log");
        assert!(error.to_string().contains("cut short"), "{error}");
    }
}
