//! `clavel rollback`, `clavel hold` and `clavel release`: they publish as claveld does, with its configuration and its key.

use std::time::SystemTime;

use crate::claveld;
use crate::cli::claveld::ClaveldConfigArgument;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::git::git_author;
use crate::model::{MetadataValue, Name, Pattern, Revision, Timestamp};
use crate::publish::{Operation, OperatorRequest, RemovedKeys};

#[derive(Debug, clap::Args)]
pub(super) struct RollBackArguments {
    /// The deployment's name.
    name: Name,
    /// The revision to go back to.
    #[arg(long, value_name = "REVISION")]
    to: Revision,
    /// Go back also to what a key signed that a later root removed. Nobody may have stolen that key: it could have signed anything.
    #[arg(long)]
    trust_removed_keys: bool,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct HoldArguments {
    /// The deployments: names, or patterns such as `web-*`.
    #[arg(required = true, value_name = "NAME")]
    deployments: Vec<Pattern>,
    /// When they follow their sources again by themselves: a date, a time such as 2027-01-07T06:00:00Z, or a length such as 3d.
    #[arg(long, value_name = "WHEN", value_parser = parse_end)]
    until: Option<Timestamp>,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArguments {
    /// The deployments: names, or patterns such as `web-*`.
    #[arg(required = true, value_name = "NAME")]
    deployments: Vec<Pattern>,
    #[command(flatten)]
    why: WhyArgument,
    #[command(flatten)]
    signing: OperatorArguments,
}

/// The end of a hold: a time, the beginning of a day, or a length of time from now on.
fn parse_end(text: &str) -> Result<Timestamp, String> {
    let midnight = format!("{text}T00:00:00Z");
    let time = text.parse().or_else(|_| midnight.parse()).ok();
    let later = || humantime::parse_duration(text).ok().map(|length| Timestamp::from(SystemTime::now()).plus(length));
    time.or_else(later).ok_or_else(|| {
        "it has to be a date such as 2027-01-07, a time such as 2027-01-07T06:00:00Z, or a length such as 3d".to_owned()
    })
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
    let RollBackArguments { name, to, trust_removed_keys, why, signing } = arguments;
    let removed_keys = if trust_removed_keys { RemovedKeys::Trusted } else { RemovedKeys::NotTrusted };
    run(Operation::RollBack { name, to, removed_keys }, why, &signing).await
}

pub(super) async fn hold(arguments: HoldArguments) -> Result<(), Exit> {
    let HoldArguments { deployments, until, why, signing } = arguments;
    run(Operation::Hold { deployments, until }, why, &signing).await
}

pub(super) async fn release(arguments: ReleaseArguments) -> Result<(), Exit> {
    let ReleaseArguments { deployments, why, signing } = arguments;
    run(Operation::Release { deployments }, why, &signing).await
}

async fn run(operation: Operation, why: WhyArgument, signing: &OperatorArguments) -> Result<(), Exit> {
    let config = signing.config.read()?;
    let request = OperatorRequest { operation, why: why.why, person: git_author().await };
    let report = claveld::operate(&config.publish, &request).await?;
    if signing.json {
        output::json(&report)?;
    } else {
        output::line(report)?;
    }
    for report in claveld::push_on(&config).await.iter().filter(|report| report.state.failed().is_some()) {
        output::error(report);
    }
    Ok(())
}
