//! **Effect.** The copy of the store on disk: a checksummed file, and the one before it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mesh_core::replica::Cache;

/// What a file of this format begins with.
const FORMAT: &str = "mesh-cache 1";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The copy that was good for long.
pub(super) fn good(path: &Path) -> PathBuf {
    beside(path, ".good")
}

/// The copy of now becomes the one that was good for long, if the one that was set aside for that at the last call is still
/// so: the agent has lived with it in between.
pub(super) fn ripen(path: &Path, since_before: bool) -> io::Result<()> {
    let ripe = beside(path, ".ripe");
    if since_before {
        std::fs::rename(&ripe, good(path))?;
    }
    match std::fs::remove_file(&ripe) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // What is kept is written anew each time: this one stays as it is.
    std::fs::hard_link(path, &ripe)
}

/// The newest generation that is whole; and what was wrong, in words.
pub(super) fn load(path: &Path) -> (Option<Cache>, Option<String>) {
    let mut wrong = Vec::new();
    for path in [path.to_owned(), beside(path, ".old")] {
        let read = std::fs::read(&path);
        match read.map_err(|error| (error.kind() == ErrorKind::NotFound, error.to_string())) {
            Err((true, _)) => {}
            Err((false, why)) => wrong.push(format!("{}: {why}", path.display())),
            Ok(bytes) => match parse(&bytes) {
                Ok(cache) => {
                    let problem = (!wrong.is_empty())
                        .then(|| format!("going on with the older copy of the store ({})", wrong.join("; ")));
                    return (Some(cache), problem);
                }
                Err(why) => wrong.push(format!("{}: {why}", path.display())),
            },
        }
    }
    let problem = (!wrong.is_empty())
        .then(|| format!("no copy of the store can be read, so nothing is known yet ({})", wrong.join("; ")));
    (None, problem)
}

fn parse(bytes: &[u8]) -> Result<Cache, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no head")?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "its head is no text")?;
    if !head.starts_with(FORMAT) {
        return Err("it is of another format".to_owned());
    }
    let body = &bytes[end + 1..];
    if head != self::head(checksum(EMPTY, body)) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Writes a generation; the one before becomes the older. At no moment is there none.
pub(super) fn save(path: &Path, cache: &Cache) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let new = beside(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", head(0))?;
    // Written as it is made: as a whole it would be as large as the records.
    let mut body = BufWriter::with_capacity(1 << 16, Summed { file, sum: EMPTY });
    serde_json::to_writer(&mut body, cache)?;
    let Summed { mut file, sum } = body.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    writeln!(file, "{}", head(sum))?;
    file.sync_all()?;
    match std::fs::rename(path, beside(path, ".old")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::rename(&new, path)?;
    File::open(parent)?.sync_all()
}

/// The first line, with the checksum of what follows.
fn head(sum: u64) -> String {
    format!("{FORMAT} {sum:016x}")
}

/// The checksum of nothing.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, going on from a sum: it is against torn writes and bad disks, not against people.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Sums up what is written.
struct Summed {
    file: File,
    sum: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum = checksum(self.sum, bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::kv::Rev;

    use super::*;

    fn cache(rev: u64) -> Cache {
        Cache {
            cluster: "c".to_owned(),
            changed: Rev(rev),
            rev: Rev(rev),
            kvs: Vec::new(),
            ..Cache::default()
        }
    }

    #[test]
    fn the_older_one_stands_in_and_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/cache");
        assert_eq!(load(&path), (None, None));
        save(&path, &cache(1)).unwrap();
        save(&path, &cache(2)).unwrap();
        assert_eq!(load(&path), (Some(cache(2)), None));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&path, &bad).unwrap();
            let (found, problem) = load(&path);
            assert_eq!(found, Some(cache(1)), "byte {at}");
            assert!(problem.unwrap().contains("older copy"));
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(load(&path).0, Some(cache(1)));
        // As after a crash between the two renames.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(&path), (Some(cache(1)), None));
        std::fs::write(beside(&path, ".old"), b"").unwrap();
        let (found, problem) = load(&path);
        assert!(found.is_none() && problem.unwrap().contains("nothing is known"));
    }
}
