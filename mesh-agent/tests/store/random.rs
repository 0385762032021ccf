//! **Fact.** Transactions as they might come.

use mesh_core::kv::{Compare, Op, Rev, Txn};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c/1", "c/2", "c/3", "d"]).prop_map(str::to_owned)
}

pub(crate) fn txn() -> impl Strategy<Value = Txn> {
    let compare = prop_oneof![
        key().prop_map(Compare::Absent),
        key().prop_map(Compare::Exists),
        (key(), 0..12_u64).prop_map(|(key, rev)| Compare::Modified(key, Rev(rev))),
    ];
    let op = prop_oneof![
        3 => (key(), "[a-z]{0,3}").prop_map(|(key, value)| Op::Put { key, value, lease: None }),
        1 => key().prop_map(Op::Delete),
    ];
    (prop::collection::vec(compare, 0..2), prop::collection::vec(op, 0..4))
        .prop_map(|(compares, ops)| Txn { compares, ops })
}
