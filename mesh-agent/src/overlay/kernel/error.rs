//! **Effect.** Why the kernel did not do something: what was being done, the error, and the kernel's own words.

use std::time::Duration;

use nix::errno::Errno;
use rtnetlink::packet_core::{ErrorMessage, NlasIterator};

/// Netlink answers at once; a kernel that does not is stuck, and a round must end all the same.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of a netlink message's header, after which an error has its attributes.
const HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the error in words.
const ERROR_TEXT: u16 = 1;

/// Why the kernel did not do something.
#[derive(Debug, thiserror::Error)]
pub(in crate::overlay) enum KernelError {
    #[error("cannot {what}: {}{words}", .errno.desc())]
    Refused {
        what: String,
        errno: Errno,
        /// The kernel's explanation, in parentheses.
        words: String,
    },
    /// Nothing was to be written, so it was not made.
    #[error("{what} is not there")]
    Missing { what: String },
    #[error("cannot {what}: netlink failed: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("cannot {what}: the kernel did not answer within {} s", PATIENCE.as_secs())]
    Silent { what: String },
}

impl KernelError {
    pub(in crate::overlay) fn is(&self, expected: &[Errno]) -> bool {
        matches!(self, Self::Refused { errno, .. } if expected.contains(errno))
    }

    fn of(what: String, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => {
                let errno = Errno::from_raw(message.raw_code().saturating_abs());
                let words = words_of(&message).map(|text| format!(" ({text})")).unwrap_or_default();
                Self::Refused { what, errno, words }
            }
            source => Self::Netlink { what, source },
        }
    }
}

fn words_of(message: &ErrorMessage) -> Option<String> {
    let attributes = NlasIterator::new(message.header.get(HEADER..)?);
    let text = attributes.flatten().find(|attribute| attribute.kind() == ERROR_TEXT)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

/// Waits for an answer, but not for ever.
pub(super) async fn timed<T>(
    what: String,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, KernelError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(KernelError::of(what, error)),
        Err(_) => Err(KernelError::Silent { what }),
    }
}
