//! **Effect.** Shows lines for as long as they come.

use anyhow::bail;

use super::{OK, Session};

impl Session {
    /// Has `show` show each line of an answer, until that says that nobody reads any more. `began` is called when the
    /// agent has agreed, and an end that `ends` does not expect is an error: the agent has gone.
    pub(super) async fn follow(
        &self,
        path: &str,
        began: impl FnOnce(),
        mut show: impl FnMut(&str) -> anyhow::Result<bool>,
        ends: impl FnOnce() -> bool,
    ) -> anyhow::Result<u8> {
        let mut failed = None;
        let each = |line: &str| {
            show(line).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        };
        let stopped = self.client.lines(path, began, each).await?;
        match failed {
            Some(error) => Err(error),
            None if stopped || ends() => Ok(OK),
            None => bail!("the agent has ended"),
        }
    }
}
