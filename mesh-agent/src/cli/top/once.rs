//! **Effect.** One table, for pipes and scripts.

use std::time::Duration;

use mesh_core::top::{Cell, Top, notices};

use super::read;
use crate::cli::format::{self, Format};
use crate::cli::{OK, Session};

pub(super) async fn run(
    mut top: Top,
    interval: Duration,
    format: Option<&Format>,
    session: &Session,
) -> anyhow::Result<u8> {
    let look = read::look(&session.client).await?;
    let counted = look.counted.is_some();
    top.looked(look, Duration::ZERO);
    if counted {
        // How fast something grows only two looks can tell.
        tokio::time::sleep(interval).await;
        top.looked(read::look(&session.client).await?, interval);
    }
    let columns: Vec<_> = top.view().columns().iter().map(|column| (column.field, column.title)).collect();
    let people = matches!(format, None | Some(Format::Table | Format::TableTemplate(_)));
    let cell = |cell: &Cell| if people { cell.text() } else { cell.exact() };
    let rows = top.rows().iter().map(|row| row.cells.iter().map(cell).collect()).collect();
    format::list(&session.out, format, &columns, rows)?;
    for notice in top.look().into_iter().flat_map(notices) {
        session.out.say(notice.text);
    }
    Ok(OK)
}
