//! **Fact.** Which features of the kernel are used, and what is done instead of those that are not.

use std::collections::BTreeMap;

use crate::config::KernelFeature;

/// Why a feature is used or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Used,
    /// It is not, and why.
    Missing(String),
    /// The configuration says to do without.
    Off,
}

/// A feature, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// As the configuration calls it.
    pub name: &'static str,
    /// Whether it is used.
    pub found: Found,
    /// What is done where it is not.
    pub instead: &'static str,
}

impl Feature {
    /// Programs in the kernel at all, without which nothing else here matters.
    pub fn ebpf(found: Found) -> Self {
        Self { name: "ebpf", found, instead: "nftables balances; the limits say what it cannot do" }
    }
}

impl KernelFeature {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::SockLb => "sock_lb",
            Self::SockDestroy => "sock_destroy",
            Self::CsumV6 => "csum_v6",
            Self::Reflector => "reflector",
        }
    }

    const fn instead(self) -> &'static str {
        match self {
            Self::Tcx => "programs are filters of tc",
            Self::SockLb | Self::SockDestroy => "packets alone are balanced",
            Self::CsumV6 => {
                "the kernel works out again what a device that sums whole packets (CHECKSUM_COMPLETE) said of \
                 translated ones of IPv6"
            }
            Self::Reflector => "other nodes probe this one by ICMP, and do not see that its agent lives",
        }
    }
}

/// Those that the eBPF data plane can do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features(BTreeMap<KernelFeature, Found>);

impl Features {
    /// None is tried yet, and these are not going to be.
    pub fn without(off: &[KernelFeature]) -> Self {
        Self(off.iter().map(|feature| (*feature, Found::Off)).collect())
    }

    /// Tries one, unless it is turned off. Whether it is used.
    pub fn attempt(&mut self, feature: KernelFeature, attempt: impl FnOnce() -> Result<(), String>) -> bool {
        let found = self.0.entry(feature).or_insert_with(|| match attempt() {
            Ok(()) => Found::Used,
            Err(why) => Found::Missing(why),
        });
        *found == Found::Used
    }

    /// One turns out not to be there.
    pub fn lose(&mut self, feature: KernelFeature, why: String) {
        self.0.insert(feature, Found::Missing(why));
    }

    /// Whether it was tried, and is there.
    pub fn uses(&self, feature: KernelFeature) -> bool {
        self.0.get(&feature) == Some(&Found::Used)
    }

    /// All of them.
    pub fn list(&self) -> impl Iterator<Item = Feature> {
        self.0.iter().map(|(feature, found)| Feature {
            name: feature.name(),
            found: found.clone(),
            instead: feature.instead(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_turned_off_is_not_tried() {
        let mut features = Features::without(&[KernelFeature::Tcx]);
        assert!(!features.attempt(KernelFeature::Tcx, || panic!("tried")));
        assert!(features.attempt(KernelFeature::SockLb, || Ok(())));
        assert!(!features.attempt(KernelFeature::CsumV6, || Err("too old".to_owned())));
        assert!(features.uses(KernelFeature::SockLb) && !features.uses(KernelFeature::Reflector));
        features.lose(KernelFeature::SockLb, "no control group".to_owned());
        let found: Vec<_> = features.list().map(|feature| (feature.name, feature.found)).collect();
        let missing = |why: &str| Found::Missing(why.to_owned());
        let wanted =
            [("tcx", Found::Off), ("sock_lb", missing("no control group")), ("csum_v6", missing("too old"))];
        assert_eq!(found, wanted);
    }
}
