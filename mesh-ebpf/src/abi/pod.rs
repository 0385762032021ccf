//! That the agent may copy these types from and to maps.

use super::*;
use crate::flow::{Bucket, Flow};
use crate::fragment::{FragmentKey, FragmentValue};
use crate::probe::Standing;

macro_rules! pod {
    ($($type:ty),+ $(,)?) => { $(
        // SAFETY: `repr(C)` and made of integers and arrays of them; every padding byte is a named field, so all
        // bytes are initialised, and every bit pattern is a valid value.
        unsafe impl aya::Pod for $type {}
    )+ };
}

pod!(
    Addr16,
    AffinityKey,
    AffinityValue,
    Backend,
    Bucket,
    Config,
    Endpoint,
    Flow,
    FragmentKey,
    FragmentValue,
    Frontend,
    FrontendKey,
    MacKey,
    NetnsKey,
    Network,
    Peer,
    Served,
    ServedKey,
    Signs,
    SocketChoice,
    SocketKey,
    SocketOrigin,
    SourceKey,
    Standing,
    Stats,
);
