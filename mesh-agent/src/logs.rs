//! **Fact.** What the commands of services print: one file for each of a node's tasks, `web.1.log` in the agent's state.
//!
//! Each line has its time and where it was printed, as files of the Container Runtime Interface have it:
//! `2026-11-29T10:00:00.000000001Z stdout F Hello`. Whatever else is in there is a line without a time: what the
//! supervisor says, or what somebody else wrote. The task's supervisor writes, the agent reads.

mod read;
mod write;

use std::fs::{DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

pub use read::{Reader, Span};
pub(crate) use write::{Log, keep};

/// What a file may have, in bytes; then it is the old one, and the one before that goes.
pub const LONGEST: u64 = 8 << 20;
/// What one line may have, in bytes; what is longer is told in pieces, as Docker does.
pub const LONGEST_LINE: usize = 16 << 10;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was printed, where that is known.
    pub time: Option<Timestamp>,
    /// Where.
    pub stream: Stream,
    /// What, without the end of the line. Any bytes.
    pub text: Vec<u8>,
}

impl Line {
    /// Reads a line as it is in a file.
    pub fn read(bytes: &[u8]) -> Self {
        let plain = || Self { time: None, stream: Stream::Stderr, text: bytes.to_vec() };
        let mut parts = bytes.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(b"F" | b"P"), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return plain();
        };
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return plain(),
        };
        match str::from_utf8(time).ok().and_then(|time| time.parse().ok()) {
            Some(time) => Self { time: Some(time), stream, text: text.to_vec() },
            None => plain(),
        }
    }

    /// As it is written. `whole`: it ends here, and is not only a piece.
    fn write(time: Timestamp, stream: Stream, whole: bool, text: &[u8]) -> Vec<u8> {
        let tag = if whole { 'F' } else { 'P' };
        let mut line = format!("{time:.9} {} {tag} ", stream.name()).into_bytes();
        line.extend(text);
        line.push(b'\n');
        line
    }
}

/// The file of a service's task.
pub fn file(dir: &Path, service: &str, slot: u32) -> PathBuf {
    dir.join(format!("{service}.{slot}.log"))
}

/// Which of a service's tasks have one here, by their numbers.
pub fn slots(dir: &Path, service: &str) -> io::Result<Vec<u32>> {
    let slot = |entry: DirEntry| {
        let name = entry.file_name();
        let (of, slot) = whose(name.to_str()?.strip_suffix(".log")?)?;
        (of == service).then_some(slot)
    };
    let mut slots: Vec<u32> = entries(dir)?.filter_map(slot).collect();
    slots.sort_unstable();
    Ok(slots)
}

/// Removes those of services that are gone, once nobody has written to them for so long.
pub fn discard(dir: &Path, exists: impl Fn(&str) -> bool, after: Duration) -> io::Result<()> {
    for entry in entries(dir)? {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let Some((service, _)) = name.trim_end_matches(".old").strip_suffix(".log").and_then(whose) else {
            continue;
        };
        // One whose age cannot be told is not old.
        let old = || Some(entry.metadata().ok()?.modified().ok()?.elapsed().ok()? > after);
        if !exists(service) && old() == Some(true) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A directory that is not there has none.
fn entries(dir: &Path) -> io::Result<impl Iterator<Item = DirEntry> + use<>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    Ok(entries.into_iter().flatten().flatten())
}

/// The service and the slot of `web.1`.
fn whose(stem: &str) -> Option<(&str, u32)> {
    let (service, slot) = stem.rsplit_once('.')?;
    Some((service, slot.parse().ok()?))
}

/// What a file becomes when it is full.
fn former(file: &Path) -> PathBuf {
    file.with_extension("log.old")
}

/// Opens it for what is to come. Only for root: nobody knows what commands print.
pub fn open(file: &Path) -> io::Result<File> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if std::fs::metadata(file).is_ok_and(|found| found.len() > LONGEST) {
        // Where that fails the log goes on.
        let _ = std::fs::rename(file, former(file));
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let time: Timestamp = "2026-11-29T10:00:00.000000001Z".parse().unwrap();
        for (stream, text) in
            [(Stream::Stdout, &b"F P  two "[..]), (Stream::Stderr, b""), (Stream::Stdout, b"\xff\0")]
        {
            let written = Line::write(time, stream, true, text);
            let expected = Line { time: Some(time), stream, text: text.to_vec() };
            assert_eq!(Line::read(written.strip_suffix(b"\n").unwrap()), expected);
        }
        let written = Line::write("2026-11-29T10:00:00Z".parse().unwrap(), Stream::Stdout, false, b"x");
        assert_eq!(written, b"2026-11-29T10:00:00.000000000Z stdout P x\n");
    }

    #[test]
    fn what_is_not_ours_is_a_line_without_a_time() {
        for text in [&b"mesh: no"[..], b"", b"now stdout F x", b"2026-11-29T10:00:00Z stdin F x", b"\xff"] {
            let plain = Line { time: None, stream: Stream::Stderr, text: text.to_vec() };
            assert_eq!(Line::read(text), plain);
        }
    }

    #[test]
    fn a_service_has_its_own_files_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        assert!(slots(&dir.path().join("none"), "web").unwrap().is_empty());
        for (service, slot) in [("web", 10), ("web", 2), ("web.x", 3), ("we", 1)] {
            std::fs::write(file(dir.path(), service, slot), "").unwrap();
        }
        std::fs::write(dir.path().join("web.2.log.old"), "").unwrap();
        std::fs::write(dir.path().join("web.x.log"), "").unwrap();
        assert_eq!(slots(dir.path(), "web").unwrap(), [2, 10]);
        assert_eq!(slots(dir.path(), "web.x").unwrap(), [3]);
    }

    #[test]
    fn what_services_printed_that_are_gone_is_kept_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["web.1.log", "web.1.log.old", "db.1.log", "db.2.log.old", "db.log", "notes"];
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let left = || entries(dir.path()).unwrap().count();
        let web = |service: &str| service == "web";
        discard(dir.path(), web, Duration::from_secs(3600)).unwrap();
        assert_eq!(left(), names.len(), "somebody may want to know why it went");
        std::thread::sleep(Duration::from_millis(2));
        discard(dir.path(), web, Duration::ZERO).unwrap();
        assert_eq!(left(), names.len() - 2);
        assert_eq!((slots(dir.path(), "web").unwrap(), slots(dir.path(), "db").unwrap()), (vec![1], vec![]));
        discard(&dir.path().join("none"), web, Duration::ZERO).unwrap();
    }
}
