//! **Effect.** Keeps what a command prints. A full disk, or a log that cannot be written, never holds a command up: what it
//! prints then is lost.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{LONGEST, LONGEST_LINE, Line, Stream, former, open};

/// A log that is written.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// What it may have.
    longest: u64,
}

impl Log {
    /// Opens it.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        Self::of(path, LONGEST)
    }

    fn of(path: PathBuf, longest: u64) -> io::Result<Self> {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, longest })
    }

    fn line(&mut self, stream: Stream, whole: bool, text: &[u8]) -> io::Result<()> {
        if self.size > self.longest {
            std::fs::rename(&self.path, former(&self.path))?;
            *self = Self::of(std::mem::take(&mut self.path), self.longest)?;
        }
        let line = Line::write(Timestamp::now(), stream, whole, text);
        self.size += line.len() as u64;
        self.file.write_all(&line)
    }
}

/// Writes down what comes, to its end, line by line.
pub(crate) async fn keep(mut from: impl AsyncRead + Unpin, stream: Stream, log: &RefCell<Log>) {
    let (mut line, mut in_pieces) = (Vec::new(), false);
    let mut chunk = vec![0; LONGEST_LINE];
    // What cannot be read has no end that would come later.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let mut rest = &chunk[..read];
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let room = LONGEST_LINE - line.len();
            let (text, next) = match end {
                Some(end) if end <= room => (&rest[..end], &rest[end + 1..]),
                _ => rest.split_at(rest.len().min(room)),
            };
            line.extend_from_slice(text);
            let whole = end.is_some_and(|end| end <= room);
            rest = next;
            if whole || line.len() == LONGEST_LINE {
                // A line that ended with its last piece is not followed by an empty one.
                if !(line.is_empty() && in_pieces) {
                    let _ = log.borrow_mut().line(stream, whole, &line);
                }
                line.clear();
                in_pieces = !whole;
            }
        }
    }
    if !line.is_empty() {
        let _ = log.borrow_mut().line(stream, true, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(path: &std::path::Path) -> Vec<Vec<u8>> {
        let text = std::fs::read(path).unwrap();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Line::read(line).text).collect()
    }

    #[tokio::test]
    async fn lines_are_kept_with_their_ends_and_long_ones_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/web.1.log");
        let log = RefCell::new(Log::open(path.clone()).unwrap());
        let long = vec![b'x'; LONGEST_LINE + 3];
        let even = [&long[..LONGEST_LINE], b"\n"].concat();
        let printed = [b"one\n\ntwo \xff\n", &long[..], b"\n", &even, b"no end"].concat();
        keep(&printed[..], Stream::Stdout, &log).await;
        let expected: Vec<&[u8]> = vec![
            b"one",
            b"",
            b"two \xff",
            &long[..LONGEST_LINE],
            &long[LONGEST_LINE..],
            &even[..LONGEST_LINE],
            b"no end",
        ];
        assert_eq!(kept(&path), expected);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_log_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.1.log");
        let log = RefCell::new(Log::of(path.clone(), 1000).unwrap());
        let printed: String = (0..100).map(|n| format!("{n:100}\n")).collect();
        keep(printed.as_bytes(), Stream::Stderr, &log).await;
        let all = [kept(&former(&path)), kept(&path)].concat();
        let last: Vec<_> = (100 - all.len()..100).map(|n| format!("{n:100}").into_bytes()).collect();
        assert!(all.len() > 7 && all.len() < 20, "{}", all.len());
        assert_eq!(all, last, "the last ones, and none is missing between");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn who_cannot_write_reads_on() {
        let dir = tempfile::tempdir().unwrap();
        let log =
            Log { path: dir.path().join("x"), file: File::open("/dev/null").unwrap(), size: 0, longest: 1 };
        let printed = vec![b'\n'; 100_000];
        keep(&printed[..], Stream::Stdout, &RefCell::new(log)).await;
    }
}
