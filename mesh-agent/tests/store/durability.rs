//! **Effect.** What was acknowledged is there after the process was killed, and nothing is torn.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mesh_agent::store::Store;
use mesh_agent::store::conformance::commit;
use mesh_agent::store::local::LocalStore;
use mesh_core::kv::{Event, Rev, Txn};

/// Tells the child where to write; without it this is the parent.
const CHILD: &str = "MESH_TEST_STORE_CHILD";
const WRITERS: usize = 4;
const ROUNDS: usize = 12;

/// Writes pairs without end and says on standard output which ones were acknowledged.
async fn write_for_ever(path: &Path) {
    let store = LocalStore::open(path).unwrap();
    let start = store.status().await.unwrap().rev.0;
    let writer = |writer: usize| {
        let store = &store;
        async move {
            for n in start.. {
                let mut txn = Txn::default();
                txn.put(format!("a/{writer}"), n.to_string());
                txn.put(format!("b/{writer}"), n.to_string());
                if n % 3 == 0 {
                    txn.put(format!("big/{writer}"), "v".repeat(20_000));
                } else {
                    txn.delete(format!("big/{writer}"));
                }
                let rev = commit(store, txn).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {writer} {n} {rev}").unwrap();
                out.flush().unwrap();
            }
        }
    };
    futures_util::future::join_all((0..WRITERS).map(writer)).await;
}

/// Runs a child for a while, kills it, and gives back what it had acknowledged: by revision, who and what.
fn acknowledged(path: &Path, for_how_long: Duration) -> BTreeMap<u64, (usize, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::what_was_acknowledged_outlives_kill_9", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    // The time counts from the first write, for starting takes long where much else runs.
    while !text.contains("ack ") {
        assert!(out.read_line(&mut text).unwrap() > 0, "the child ended by itself: {text}");
    }
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        text + &String::from_utf8_lossy(&rest)
    });
    std::thread::sleep(for_how_long);
    child.kill().unwrap();
    child.wait().unwrap();
    let text = reader.join().unwrap();
    // The last line may be cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .filter_map(|line| line.split_once("ack "))
        .map(|(_, ack)| {
            let mut numbers = ack.split(' ').map(|number| number.parse::<u64>().unwrap());
            let (writer, n, rev) =
                (numbers.next().unwrap(), numbers.next().unwrap(), numbers.next().unwrap());
            (rev, (writer as usize, n))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_kill_9() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_for_ever(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (mut acks, mut cluster) = (0, None);
    for round in 0..ROUNDS {
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        let before = path.exists().then(|| LocalStore::open(&path).unwrap());
        let before = match before {
            Some(store) => store.status().await.unwrap().rev,
            None => Rev(0),
        };
        let acknowledged = acknowledged(&path, Duration::from_millis(u64::from(random[0])));
        acks += acknowledged.len();

        let store = LocalStore::open(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let listing = store.list("").await.unwrap();
        assert_eq!(cluster.get_or_insert_with(|| listing.cluster.clone()), &listing.cluster);
        let newest = acknowledged.keys().next_back().unwrap();
        assert!(listing.rev >= Rev(*newest), "round {round}: {} < {newest}", listing.rev);

        // History: each revision since, in order and whole, the acknowledged ones as they were.
        let mut watch = store.watch("", before).await.unwrap();
        let (mut seen, mut unseen) = (before, acknowledged.clone());
        while seen < listing.rev {
            let batch = futures_util::StreamExt::next(&mut watch).await.unwrap().unwrap();
            assert_eq!(batch.rev, Rev(seen.0 + 1), "round {round}: a gap");
            seen = batch.rev;
            let puts: BTreeMap<_, _> = batch
                .events
                .iter()
                .filter_map(|event| match event {
                    Event::Put(kv) => Some((&*kv.key, &*kv.value)),
                    Event::Delete(_) => None,
                })
                .collect();
            let writer = (0..WRITERS).find(|writer| puts.contains_key(&*format!("a/{writer}"))).unwrap();
            assert_eq!(puts[&*format!("a/{writer}")], puts[&*format!("b/{writer}")], "round {round}: torn");
            if let Some((who, n)) = unseen.remove(&seen.0) {
                assert_eq!((who, n.to_string().as_str()), (writer, puts[&*format!("a/{writer}")]));
            }
        }
        assert!(unseen.is_empty(), "round {round}: acknowledged and lost: {unseen:?}");

        // The list: no pair torn, nothing older than what was acknowledged.
        let values: BTreeMap<_, _> =
            listing.kvs.iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect();
        for (writer, n) in acknowledged.values() {
            let (a, b) = (&values[&format!("a/{writer}")], &values[&format!("b/{writer}")]);
            assert_eq!(a, b, "round {round}: torn");
            assert!(a.parse::<u64>().unwrap() >= *n, "round {round}: writer {writer} lost {n}, has {a}");
        }
    }
    println!("{ROUNDS} times killed, {acks} acknowledged transactions, all there");
}
