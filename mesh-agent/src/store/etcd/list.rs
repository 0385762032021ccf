//! **Effect.** Lists: page by page, all at the revision of the first.

use etcd_client::{GetOptions, GetResponse};
use mesh_core::kv::{Listing, Rev};

use super::failure::Failure;
use super::keys::{prefix_end, rev, revision};
use super::link::{Link, Whom};
use crate::store::StoreError;

/// How many keys a page has.
const PAGE: i64 = 1000;
/// How much a page may be, bytes, as far as waiting for it goes.
const PAGE_BYTES: usize = 4 << 20;
/// How often a list is begun when history is compacted faster than it can be read.
const ATTEMPTS: usize = 3;

/// All records that begin with a prefix; those of another mesh's store, too: whoever lists sees which one it is.
pub(super) async fn run(link: &Link, prefix: &str) -> Result<Listing, StoreError> {
    let mut attempt = 1;
    loop {
        match pages(link, prefix).await {
            Err(Failure::Compacted) if attempt < ATTEMPTS => attempt += 1,
            listing => return listing.map_err(|failure| failure.into_error(&link.place())),
        }
    }
}

async fn pages(link: &Link, prefix: &str) -> Result<Listing, Failure> {
    let keys = link.keys();
    let mut from = keys.record(prefix).into_bytes();
    let end = prefix_end(&from);
    let (mesh, mut page) = read(link, from, &end, Rev(0)).await?;
    let at = rev(page.header().map_or(0, |header| header.revision()));
    let mut kvs = Vec::new();
    loop {
        kvs.extend(page.kvs().iter().filter_map(|kv| keys.read(kv)));
        match page.kvs().last() {
            Some(last) if page.more() => from = [last.key(), b"\0"].concat(),
            _ => return Ok(Listing { cluster: mesh, rev: at, kvs }),
        }
        let (other, next) = read(link, from, &end, at).await?;
        if other != mesh {
            return Err(Failure::NotDone(
                "another mesh answers than the one that the list began with".to_owned(),
            ));
        }
        page = next;
    }
}

/// One page, as it was at a revision (0: now), and of which mesh.
async fn read(link: &Link, from: Vec<u8>, end: &[u8], at: Rev) -> Result<(String, GetResponse), Failure> {
    link.ask(Whom::Any, |session| {
        let options = GetOptions::new().with_range(end).with_limit(PAGE).with_revision(revision(at));
        let (mut kv, from) = (session.kv(), from.clone());
        async move {
            let page = session.ask(PAGE_BYTES, async move { kv.get(from, Some(options)).await }).await?;
            Ok((session.mesh.clone(), page))
        }
    })
    .await
}
