//! **Effect.** Removes or shows several things: all that can be is done, and each that cannot is named.

use serde_json::Value;

use super::{FAILED, OK, Session, converge, format};
use crate::api::client::ClientError;
use crate::api::types::Changed;

/// What became of several removals.
pub(super) struct Removed {
    /// Those that were made.
    pub(super) changed: Vec<Changed>,
    /// What to exit with.
    pub(super) code: u8,
}

/// Removes each, and prints what was removed as it was named.
pub(super) async fn remove(
    session: &Session,
    references: &[String],
    path: impl Fn(&str) -> String,
) -> anyhow::Result<Removed> {
    let mut removed = Removed { changed: Vec::new(), code: OK };
    for reference in references {
        match session.client.delete::<Changed>(&path(&encode(reference))).await {
            Ok(changed) => {
                session.out.line(reference);
                removed.changed.push(changed);
            }
            Err(error) => removed.code = report(session, error)?,
        }
    }
    Ok(removed)
}

/// Removes each, and waits for the mesh unless detached. `what` is what converges: `Service`.
pub(super) async fn remove_everywhere(
    session: &Session,
    references: &[String],
    path: impl Fn(&str) -> String,
    what: &str,
    detach: bool,
) -> anyhow::Result<u8> {
    let removed = remove(session, references, path).await?;
    let newest = removed.changed.iter().map(|changed| changed.revision).max();
    if let Some(revision) = newest.filter(|_| !detach) {
        converge::wait(session, what, revision).await?;
    }
    Ok(removed.code)
}

/// Shows each as the API has it.
pub(super) async fn inspect(
    session: &Session,
    references: &[String],
    path: impl Fn(&str) -> String,
    format: Option<&format::Format>,
    schema: &'static str,
) -> anyhow::Result<u8> {
    let (found, code) = fetch(session, references, path).await?;
    format::records(&session.out, format, schema, &found)?;
    Ok(code)
}

/// Reads each; what is not there is named.
pub(super) async fn fetch(
    session: &Session,
    references: &[String],
    path: impl Fn(&str) -> String,
) -> anyhow::Result<(Vec<Value>, u8)> {
    let mut code = OK;
    let mut found = Vec::new();
    for reference in references {
        match session.client.get::<Value>(&path(&encode(reference))).await {
            Ok(value) => found.push(value),
            Err(error) => code = report(session, error)?,
        }
    }
    Ok((found, code))
}

/// A refusal concerns one of several things; an agent that does not answer concerns all.
pub(super) fn report(session: &Session, error: ClientError) -> anyhow::Result<u8> {
    match error {
        ClientError::Refused { .. } => {
            session.out.error(&error.into());
            Ok(FAILED)
        }
        ClientError::Unreachable { .. } | ClientError::Broken { .. } => Err(error.into()),
    }
}

/// A reference as one segment of a path, whatever people type.
pub(super) fn encode(reference: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    let dots = reference.bytes().all(|byte| byte == b'.');
    let keep = |byte: u8| plain(byte) || (byte == b'.' && !dots);
    let mut text = String::new();
    for byte in reference.bytes() {
        if keep(byte) { text.push(char::from(byte)) } else { text.push_str(&format!("%{byte:02X}")) }
    }
    // An empty segment would name the list.
    if text.is_empty() { "%20".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn anything_is_one_segment() {
        for (reference, segment) in
            [("web.1", "web.1"), ("a/b?c", "a%2Fb%3Fc"), ("wéb", "w%C3%A9b"), ("..", "%2E%2E"), ("", "%20")]
        {
            assert_eq!(encode(reference), segment);
        }
    }
}
