//! `clavel rollback`, `clavel hold` and `clavel release`: they publish as claveld does, with its configuration and its key.

use crate::cli::claveld::ClaveldConfigArgument;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{MetadataValue, Name, Revision};
use crate::publish::{Operation, OperatorRequest};

#[derive(Debug, clap::Args)]
pub(super) struct RollBackArguments {
    /// The deployment's name.
    name: Name,
    /// The revision to go back to.
    #[arg(long, value_name = "REVISION")]
    to: Revision,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct HoldArguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

#[derive(Debug, clap::Args)]
struct WhyArgument {
    /// The reason, which the commit and `clavel show` show: one line of at most 1024 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: MetadataValue,
}

#[derive(Debug, clap::Args)]
struct OperatorArguments {
    // Claveld's configuration names the branch and the key that signs.
    #[command(flatten)]
    config: ClaveldConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn roll_back(arguments: RollBackArguments) -> Result<(), Exit> {
    let RollBackArguments { name, to, why, signing } = arguments;
    run(OperatorRequest { name, operation: Operation::RollBack(to), why: why.why }, &signing).await
}

pub(super) async fn hold(arguments: HoldArguments) -> Result<(), Exit> {
    let HoldArguments { name, why, signing } = arguments;
    run(OperatorRequest { name, operation: Operation::Hold, why: why.why }, &signing).await
}

pub(super) async fn release(arguments: ReleaseArguments) -> Result<(), Exit> {
    let ReleaseArguments { name, why, signing } = arguments;
    run(OperatorRequest { name, operation: Operation::Release, why: why.why }, &signing).await
}

async fn run(request: OperatorRequest, signing: &OperatorArguments) -> Result<(), Exit> {
    let config = signing.config.read()?;
    let report = crate::claveld::publisher(&config.publish)?.operate(&request).await?;
    if signing.json { output::json(&report) } else { output::line(report) }
}
