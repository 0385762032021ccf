//! **Effect.** The client's end of a watch: lines that come one by one, or the reason why none will come.

use bytes::BytesMut;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::client::PATIENCE;
use super::dial::Sender;
use super::wire::Line;
use crate::store::{Batches, WatchEnd};

/// Longer lines come from no gateway.
const MAX_LINE: usize = 64 << 20;

/// A watch's answer, line by line. The connection lives as long as this.
pub(super) fn lines(sender: Sender, body: Incoming) -> Batches {
    let begin = Some((sender, body, BytesMut::new()));
    Box::pin(stream::unfold(begin, |state| async move {
        let (sender, mut body, mut buffer) = state?;
        let item = next_line(&mut body, &mut buffer).await.and_then(|line| line.into());
        let rest = item.is_ok().then_some((sender, body, buffer));
        Some((item, rest))
    }))
}

async fn next_line(body: &mut Incoming, buffer: &mut BytesMut) -> Result<Line, WatchEnd> {
    let lost = |why: String| Err(WatchEnd::Lost(why));
    let mut searched = 0;
    loop {
        if let Some(end) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(searched + end + 1);
            return serde_json::from_slice(&line)
                .or_else(|error| lost(format!("the gateway sent nonsense: {error}")));
        }
        searched = buffer.len();
        if searched > MAX_LINE {
            return lost("the gateway sent a line without end".to_owned());
        }
        match timeout(PATIENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => buffer.extend(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => return lost(error.to_string()),
            Ok(None) => return lost("the gateway closed the connection".to_owned()),
            Err(_) => return lost(format!("nothing came for {} s", PATIENCE.as_secs())),
        }
    }
}
