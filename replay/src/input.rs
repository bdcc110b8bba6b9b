//! Lines of files, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::progress::Progress;

/// What is longer is no line of a log, and is read away.
const LONGEST: u64 = 1 << 16;

/// Calls a function with every line of these files, one after the other, without its end.
pub(crate) fn each_line(files: &[PathBuf], mut line: impl FnMut(&[u8])) -> Result<(), String> {
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |about| about.len());
    let done = Arc::new(AtomicU64::new(0));
    let mut progress = Progress::new(files.iter().map(size).sum(), Arc::clone(&done));
    for path in files {
        read(path, &done, &mut progress, &mut line)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    }
    progress.end();
    Ok(())
}

fn read(
    path: &Path,
    done: &Arc<AtomicU64>,
    progress: &mut Progress,
    line: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    let raw: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path)?),
    };
    let counted = Counted {
        inner: raw,
        done: Arc::clone(done),
    };
    let mut raw = BufReader::with_capacity(1 << 20, counted);
    let is_compressed = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut lines: Box<dyn BufRead> = match is_compressed {
        true => Box::new(BufReader::with_capacity(1 << 20, MultiGzDecoder::new(raw))),
        false => Box::new(raw),
    };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        if (&mut lines).take(LONGEST).read_until(b'\n', &mut buffer)? == 0 {
            return Ok(());
        }
        if buffer.last() != Some(&b'\n') && buffer.len() as u64 == LONGEST {
            skip_line(&mut lines)?;
        }
        line(buffer.trim_ascii_end());
        progress.step();
    }
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let there = lines.fill_buf()?;
        let (end, length) = match there.iter().position(|byte| *byte == b'\n') {
            Some(at) => (true, at + 1),
            None => (there.is_empty(), there.len()),
        };
        lines.consume(length);
        if end {
            return Ok(());
        }
    }
}

/// Counts what was read of the file itself.
struct Counted {
    inner: Box<dyn Read>,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
