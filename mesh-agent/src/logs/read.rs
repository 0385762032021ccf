//! **Fact.** What was printed, from the file that was full before to the one that grows now.
//!
//! No more than a few lines of each file are in memory, however long they are and whatever is in them.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{LONGEST_LINE, Line, former};

/// How much is read at a time.
const CHUNK: usize = 64 << 10;
/// What a line has beside what was printed, and what somebody else's line may have.
const LONGEST: usize = LONGEST_LINE + 64;

/// What is wanted of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Only so many of the last lines; none: all.
    pub tail: Option<u64>,
    /// Only what was printed then or later, as far as that is known.
    pub since: Option<Timestamp>,
    /// Also what is printed from now on.
    pub follow: bool,
}

/// Reads a task's log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    span: Span,
    now: Option<File>,
    /// Up to where the file that grows is read: what is printed meanwhile is for those who follow.
    end: u64,
    /// What comes after it, if that is known already.
    next: Option<File>,
    /// What was read, and from where on it was not yet told.
    rest: Vec<u8>,
    told: usize,
    /// The time of the last line that had one.
    time: Option<Timestamp>,
}

impl Reader {
    /// Begins with a file, which need not be there yet.
    pub fn open(path: PathBuf, span: Span) -> io::Result<Self> {
        let (mut now, mut old) = (present(File::open(&path))?, present(File::open(former(&path)))?);
        // It became the former one just now.
        if let (Some(now), Some(there)) = (&now, &old)
            && same(&now.metadata()?, &there.metadata()?)
        {
            old = None;
        }
        if let Some(tail) = span.tail {
            let found = now.as_mut().map_or(Ok(0), |file| seek_last(file, tail))?;
            match &mut old {
                Some(old) if found < tail => drop(seek_last(old, tail - found)?),
                _ => old = None,
            }
        }
        let end = match &now {
            Some(file) if !span.follow => file.metadata()?.len(),
            _ => u64::MAX,
        };
        let next = old.is_some().then(|| now.take()).flatten();
        Ok(Self { path, span, now: old.or(now), end, next, rest: Vec::new(), told: 0, time: None })
    }

    /// The next line; none: there is none now. Lines without a time are as old as the one before.
    pub fn line(&mut self) -> io::Result<Option<Line>> {
        while let Some(mut line) = self.any_line()? {
            self.time = line.time.or(self.time);
            line.time = self.time;
            if self.span.since.is_none_or(|since| line.time.is_some_and(|time| time >= since)) {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn any_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let rest = &self.rest[self.told..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = Line::read(&rest[..end]);
                self.told += end + 1;
                return Ok(Some(line));
            }
            if rest.len() >= LONGEST {
                return Ok(Some(self.unended()));
            }
            self.rest.drain(..self.told);
            self.told = 0;
            if !self.more()? {
                // Who follows waits for its end.
                let ends = !self.span.follow && !self.rest.is_empty();
                return Ok(ends.then(|| self.unended()));
            }
        }
    }

    fn unended(&mut self) -> Line {
        let rest = &self.rest[self.told..];
        let length = rest.len().min(LONGEST);
        let line = Line::read(&rest[..length]);
        self.told += length;
        line
    }

    /// Reads on; false: there is nothing more now.
    fn more(&mut self) -> io::Result<bool> {
        loop {
            if let Some(file) = &mut self.now {
                // Only what grows has an end.
                let end = if self.next.is_some() { u64::MAX } else { self.end };
                let most = end.saturating_sub(file.stream_position()?).min(CHUNK as u64);
                if file.take(most).read_to_end(&mut self.rest)? > 0 {
                    return Ok(true);
                }
            }
            if !self.goes_on()? {
                return Ok(false);
            }
            // What was there of a line has no other end.
            if !self.rest.is_empty() {
                self.rest.push(b'\n');
                return Ok(true);
            }
        }
    }

    /// After the end of a file: whether there is another, or it begins anew.
    fn goes_on(&mut self) -> io::Result<bool> {
        if let Some(next) = self.next.take() {
            self.now = Some(next);
            return Ok(true);
        }
        if !self.span.follow {
            return Ok(false);
        }
        let Some(new) = present(File::open(&self.path))? else { return Ok(false) };
        if let Some(now) = &mut self.now {
            let found = new.metadata()?;
            if same(&now.metadata()?, &found) {
                // Unless somebody emptied it.
                let begins_anew = found.len() < now.stream_position()?;
                if begins_anew {
                    now.rewind()?;
                }
                return Ok(begins_anew);
            }
        }
        self.now = Some(new);
        Ok(true)
    }
}

/// Goes to where the last lines begin; how many there are, of those that are wanted.
fn seek_last(file: &mut File, wanted: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let (length, mut ends) = (end, 0);
    let mut chunk = Vec::new();
    while end > 0 && wanted > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.take(end - start).read_to_end(&mut chunk)?;
        for (at, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // A line's own end is none before it.
            let after = start + at as u64 + 1;
            if after < length {
                ends += 1;
                if ends == wanted {
                    file.seek(SeekFrom::Start(after))?;
                    return Ok(wanted);
                }
            }
        }
        end = start;
    }
    if wanted > 0 {
        file.rewind()?;
    }
    Ok(if length > 0 { (ends + 1).min(wanted) } else { 0 })
}

/// What is not there is none.
fn present(file: io::Result<File>) -> io::Result<Option<File>> {
    match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::logs::Stream;

    fn line(second: u32, text: &str) -> Vec<u8> {
        Line::write(time(second), Stream::Stdout, true, text.as_bytes())
    }

    fn time(second: u32) -> Timestamp {
        format!("2026-11-29T10:00:{second:02}Z").parse().unwrap()
    }

    fn append(path: &Path, bytes: &[u8]) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    fn all(reader: &mut Reader) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = reader.line().unwrap() {
            lines.push(String::from_utf8_lossy(&line.text).into_owned());
        }
        lines
    }

    fn read(path: &Path, span: Span) -> Vec<String> {
        all(&mut Reader::open(path.into(), span).unwrap())
    }

    /// Lines 1 to 3 in the former file, 4 and 5 in the present one.
    fn five(dir: &Path) -> PathBuf {
        let path = dir.join("web.1.log");
        for second in 1..=5 {
            let file = if second < 4 { former(&path) } else { path.clone() };
            append(&file, &line(second, &second.to_string()));
        }
        path
    }

    #[test]
    fn the_last_ones_or_those_since_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = five(dir.path());
        for tail in 0..8 {
            let expected: Vec<_> = (1..=5).skip(5 - 5.min(tail)).map(|n: usize| n.to_string()).collect();
            assert_eq!(read(&path, Span { tail: Some(tail as u64), ..Span::default() }), expected);
        }
        assert_eq!(read(&path, Span::default()).len(), 5);
        for (since, first) in [(0, 1), (3, 3), (5, 5)] {
            let found = read(&path, Span { since: Some(time(since)), ..Span::default() });
            assert_eq!(found.first(), Some(&first.to_string()));
        }
        let both = Span { tail: Some(2), since: Some(time(1)), follow: false };
        assert_eq!(read(&path, both), ["4", "5"]);
        assert_eq!(read(&path, Span { since: Some(time(6)), ..Span::default() }), Vec::<String>::new());
        append(&path, b"mesh: not ours");
        assert_eq!(read(&path, Span { tail: Some(2), ..Span::default() }), ["5", "mesh: not ours"]);
        assert_eq!(read(&path, Span { since: Some(time(5)), ..Span::default() }), ["5", "mesh: not ours"]);
        assert_eq!(read(&dir.path().join("web.2.log"), Span::default()), Vec::<String>::new());
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, Span { tail: Some(2), ..Span::default() }), ["2", "3"]);
    }

    #[test]
    fn many_lines_are_counted_over_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.1.log");
        let text: Vec<u8> = (0..20_000).flat_map(|n| line(1, &n.to_string())).collect();
        append(&path, &text);
        let found = read(&path, Span { tail: Some(15_000), ..Span::default() });
        assert_eq!((found.len(), found[0].as_str()), (15_000, "5000"));
    }

    #[test]
    fn what_is_printed_meanwhile_is_for_those_who_follow() {
        let dir = tempfile::tempdir().unwrap();
        let path = five(dir.path());
        let open = |follow| Reader::open(path.clone(), Span { tail: Some(2), since: None, follow }).unwrap();
        let (mut reads, mut follows) = (open(false), open(true));
        append(&path, &line(6, "6"));
        assert_eq!(
            (all(&mut reads), all(&mut follows)),
            (vec!["4".into(), "5".into()], vec!["4".into(), "5".into(), "6".into()])
        );
    }

    #[test]
    fn what_is_printed_from_now_on_is_followed_over_new_files_and_emptied_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.1.log");
        let mut reader = Reader::open(path.clone(), Span { follow: true, ..Span::default() }).unwrap();
        assert_eq!(all(&mut reader), Vec::<String>::new());
        append(&path, &line(1, "one"));
        let two = line(2, "two");
        append(&path, &two[..10]);
        assert_eq!(all(&mut reader), ["one"]);
        append(&path, &two[10..]);
        assert_eq!(all(&mut reader), ["two"]);
        append(&path, &line(3, "three"));
        fs::rename(&path, former(&path)).unwrap();
        append(&path, &line(4, "four"));
        assert_eq!(all(&mut reader), ["three", "four"]);
        append(&path, b"cut of");
        File::create(&path).unwrap();
        append(&path, b"5\n");
        assert_eq!(all(&mut reader), ["5"]);
        append(&path, b"unended");
        assert_eq!(all(&mut reader), Vec::<String>::new());
        fs::rename(&path, former(&path)).unwrap();
        append(&path, b"next\n");
        assert_eq!(all(&mut reader), ["unended", "next"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(all(&mut reader), Vec::<String>::new());
    }

    #[test]
    fn what_has_no_lines_and_is_no_text_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.1.log");
        append(&path, &vec![0xff; 1 << 20]);
        let mut reader = Reader::open(path, Span::default()).unwrap();
        let mut count = 0;
        while let Some(line) = reader.line().unwrap() {
            assert!(line.text.len() <= LONGEST && reader.rest.capacity() < 4 * CHUNK);
            count += line.text.len();
        }
        assert_eq!(count, 1 << 20);
    }
}
