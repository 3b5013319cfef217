//! `status`

use super::Session;
use super::fleet::Fleet;
use super::watch::{Painter, show};
use crate::args::StatusArgs;
use crate::exit::{Exit, Failure};
use crate::output;

pub(super) async fn status(session: &mut Session<'_>, args: &StatusArgs) -> Result<Exit, Failure> {
    let fleet = Fleet::open(session, &args.source)?;
    let painter = Painter::new(session, args.watch);
    show(session, args.watch, async || {
        let status = fleet.status().await?;
        let steady = status.clone().steady();
        painter.paint(&status, &steady, output::status::status, |status| {
            format!("{}\n", status.cluster)
        })
    })
    .await
}
