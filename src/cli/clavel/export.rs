//! `clavel export`: the branch as plain files, for any HTTP server.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use super::view::BranchArguments;
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::git::Depth;
use crate::publish::{ExportError, Exported, StaticExport, remove_unnamed};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder to write to. It is made where it does not exist.
    #[arg(long = "static", value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    branch: BranchArguments,
    /// Remove files that the tip has not named for this long, for example 1d. Readers and caches may still have an older tip, so it should be
    /// longer than any cache keeps one.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    remove_unnamed_after: Option<Duration>,
}

pub(super) async fn run(Arguments { folder, branch, remove_unnamed_after }: &Arguments) -> Result<(), Exit> {
    let view = branch.view(Depth::Tip).await?;
    view.verified()?;
    let Some(roots) = &view.roots else { return Ok(()) };
    let exported = StaticExport { folder, branch: view.name(), roots }.run(&view.snapshot).map_err(failed)?;
    let shown = folder.display();
    match exported {
        Exported::Unchanged(version) => output::line(format_args!("{shown}: index version {version}, unchanged"))?,
        Exported::Written { version, files, bytes } => {
            let size = ByteSize(bytes);
            output::line(format_args!("{shown}: index version {version}, {files} files ({size}) and the tip written"))?;
        }
    }
    if let Some(grace) = remove_unnamed_after {
        let removed = remove_unnamed(folder, *grace).map_err(failed)?;
        output::line(format_args!("{shown}: {removed} files removed that no tip names any more"))?;
    }
    Ok(())
}

fn failed(error: ExportError) -> Exit {
    let code = match &error {
        ExportError::Branch(_) | ExportError::Document(_) => Code::Refused,
        ExportError::Newer { .. }
        | ExportError::OtherHistory(_)
        | ExportError::Tip { .. }
        | ExportError::TooLong(_) => Code::Repository,
        ExportError::Busy(_) | ExportError::Write { .. } => Code::Machine,
    };
    Exit::new(code, error)
}
