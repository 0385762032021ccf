//! **Effect.** A database file that is read but never written: what would be written stays in memory.
//!
//! It exists because opening a database repairs it. A store that may be damaged is opened this way first,
//! so that the one copy of it is still as it was when the answer is that it cannot be used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const PAGE: u64 = 4096;

/// A file under a layer of memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    layer: Mutex<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// How much of the file still shows through: cutting it short and growing it again gives zeros.
    visible: u64,
    len: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Over a file that is open for reading.
    pub(super) fn over(file: File) -> std::io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, layer: Mutex::new(Layer { visible: len, len, pages: BTreeMap::new() }) })
    }

    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as the file has it.
    fn below(&self, number: u64, visible: u64) -> std::io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        let start = number * PAGE;
        let there = visible.saturating_sub(start).min(PAGE) as usize;
        self.file.read_exact_at(&mut page[..there], start)?;
        Ok(page)
    }
}

/// The pages that a range touches: number, where in the page, where in the range.
fn pieces(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + len as u64;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |number| {
        let (from, to) = (offset.max(number * PAGE), end.min((number + 1) * PAGE));
        let inside = (from - number * PAGE) as usize..(to - number * PAGE) as usize;
        (number, inside, (from - offset) as usize..(to - offset) as usize)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.layer().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let layer = self.layer();
        if offset.saturating_add(out.len() as u64) > layer.len {
            return Err(Error::new(ErrorKind::UnexpectedEof, "beyond the end of the file"));
        }
        for (number, inside, outside) in pieces(offset, out.len()) {
            match layer.pages.get(&number) {
                Some(page) => out[outside].copy_from_slice(&page[inside]),
                None => out[outside].copy_from_slice(&self.below(number, layer.visible)?[inside]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut layer = self.layer();
        layer.visible = layer.visible.min(len);
        layer.pages.split_off(&len.div_ceil(PAGE));
        if let Some(page) = layer.pages.get_mut(&(len / PAGE)) {
            page[(len % PAGE) as usize..].fill(0);
        }
        layer.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut layer = self.layer();
        let visible = layer.visible;
        for (number, inside, outside) in pieces(offset, data.len()) {
            let mut page = match layer.pages.remove(&number) {
                Some(page) => page,
                None => self.below(number, visible)?,
            };
            page[inside].copy_from_slice(&data[outside]);
            layer.pages.insert(number, page);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn writes_cover_the_file_and_leave_it_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        let overlay = Overlay::over(file.try_clone().unwrap()).unwrap();
        overlay.write(4090, &[2; 12]).unwrap();
        let mut out = [0; 14];
        overlay.read(4089, &mut out).unwrap();
        assert_eq!(out, [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
        overlay.set_len(4092).unwrap();
        overlay.set_len(12_000).unwrap();
        overlay.read(4089, &mut out).unwrap();
        assert_eq!(out, [1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "what was cut off comes back as zeros");
        assert!(overlay.read(11_999, &mut out).is_err());
        let mut page = [0; 4096];
        file.read_exact_at(&mut page, 4000).unwrap();
        assert!(page.iter().all(|byte| *byte == 1));
    }
}
