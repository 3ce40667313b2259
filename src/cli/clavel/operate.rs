//! `clavel rollback`, `clavel hold` and `clavel release`: they sign as claveld does, with its configuration and its key.

use crate::cli::claveld::ConfigArgument;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{MetadataValue, Name, Revision};
use crate::publish::{Deed, Wish};

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
    signing: SigningArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct HoldArguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: SigningArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArguments {
    /// The deployment's name.
    name: Name,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: SigningArguments,
}

#[derive(Debug, clap::Args)]
struct WhyArgument {
    /// Why, for the branch's log and for whoever asks later: one line of at most 1024 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: MetadataValue,
}

#[derive(Debug, clap::Args)]
struct SigningArguments {
    /// Claveld's configuration: it names the branch, and the key that signs.
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn roll_back(arguments: RollBackArguments) -> Result<(), Exit> {
    let RollBackArguments { name, to, why, signing } = arguments;
    run(Wish { name, deed: Deed::RollBack(to), why: why.why }, &signing).await
}

pub(super) async fn hold(arguments: HoldArguments) -> Result<(), Exit> {
    let HoldArguments { name, why, signing } = arguments;
    run(Wish { name, deed: Deed::Hold, why: why.why }, &signing).await
}

pub(super) async fn release(arguments: ReleaseArguments) -> Result<(), Exit> {
    let ReleaseArguments { name, why, signing } = arguments;
    run(Wish { name, deed: Deed::Release, why: why.why }, &signing).await
}

async fn run(wish: Wish, signing: &SigningArguments) -> Result<(), Exit> {
    let config = signing.config.read()?;
    let operated = crate::claveld::publisher(&config.publish)?.operate(&wish).await?;
    if signing.json { output::json(&operated) } else { output::line(operated) }
}
