//! **Effect.** Looks again and again, shows what is seen, and does what keys say.

use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_core::top::{Look, Then, Top};
use tokio::sync::mpsc::{Sender, channel};

use super::input::{self, Input};
use super::screen::{Ends, Screen};
use super::style::Palette;
use super::{draw, read};
use crate::api::client::{Client, ClientError};
use crate::cli::{OK, Session};

/// How long until an agent that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(mut top: Top, interval: Duration, session: &Session) -> anyhow::Result<u8> {
    let began = Instant::now();
    let (host, palette) = (session.client.host().to_string(), Palette::of_environment());
    // Before the terminal is taken, so that nothing ends us in between.
    let mut ends = Ends::listen().context("cannot hear signals")?;
    let mut screen = Screen::open().context("cannot use the terminal")?;
    let mut inputs = input::listen().context("cannot hear keys")?;
    let (send, mut looks) = channel(1);
    let looking = look(&session.client, interval, send);
    tokio::pin!(looking);
    // How long nobody has answered changes by itself.
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        let scene = draw::Scene { host: &host, now: began.elapsed(), palette };
        screen.draw(|frame| draw::draw(frame, &mut top, &scene)).context("cannot write to the terminal")?;
        tokio::select! {
            () = &mut looking => break,
            Some(look) = looks.recv() => match look {
                Ok(look) => top.looked(look, began.elapsed()),
                Err(error) => top.missed(why(error)),
            },
            input = inputs.recv() => match input.context("nobody hears keys any more")?.context("cannot read keys")? {
                Input::Key(key) if top.press(key) == Then::Quit => break,
                Input::Suspend => screen.suspend().context("cannot use the terminal")?,
                Input::Key(_) | Input::Else => {}
            },
            () = ends.come() => break,
            _ = tick.tick() => {}
        }
    }
    Ok(OK)
}

/// Looks for as long as somebody takes what is seen.
async fn look(client: &Client, interval: Duration, send: Sender<Result<Look, ClientError>>) {
    loop {
        let look = read::look(client).await;
        let pause = if look.is_ok() { interval } else { interval.min(AGAIN) };
        if send.send(look).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Who does not answer is told beside it.
fn why(error: ClientError) -> String {
    match error {
        ClientError::Unreachable { host: _, why } | ClientError::Broken { host: _, why } => why,
        ClientError::Refused { message, kind: _ } => message,
    }
}
