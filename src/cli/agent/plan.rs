//! `clavel-agent plan`: says what the next pass would do.

use super::AgentConfigArgument;
use crate::agent::{PlannedDeployment, plan};
use crate::cli::exit::Exit;
use crate::cli::output;

/// The most lines about one deployment's packages.
const MAX_PACKAGES: usize = 40;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let planned = plan(&config).await?;
    if arguments.json {
        return output::json(&planned);
    }
    output::table(&["deployment", "revision", "what would be done"], planned.iter().map(row))?;
    planned.iter().flat_map(details).try_for_each(output::line)
}

fn row(planned: &PlannedDeployment) -> Vec<String> {
    let PlannedDeployment { deployment, action, from, to, .. } = planned;
    let revision = match (from, to) {
        (Some(from), Some(to)) if from.revision != to.revision => format!("{} → {}", from.revision, to.revision),
        (Some(one), _) | (None, Some(one)) => one.revision.to_string(),
        (None, None) => String::new(),
    };
    vec![deployment.to_string(), revision, action.words().to_owned()]
}

/// What a table has no room for.
fn details(planned: &PlannedDeployment) -> Vec<String> {
    let PlannedDeployment { deployment, action, why, from, to, is_here, changes, changes_unknown, switch } = planned;
    let mut lines: Vec<String> = why.iter().flat_map(|why| why.lines()).map(|line| format!("because {line}")).collect();
    if action.activates() {
        lines.extend(from.iter().map(|from| format!("from {}", from.nar_id)));
        let place = if *is_here { "here" } else { "to be fetched" };
        lines.extend(to.iter().map(|to| format!("to   {} ({place})", to.nar_id)));
    }
    lines.extend(changes_unknown.iter().map(|why| format!("the changes inside are not known: {why}")));
    if let Some(changes) = changes {
        let (shown, others) = changes.packages.split_at(changes.packages.len().min(MAX_PACKAGES));
        lines.extend(shown.iter().map(ToString::to_string));
        if !others.is_empty() {
            lines.push(format!("and {} more packages", others.len()));
        }
        if changes.rebuilt > 0 {
            lines.push(format!("{} rebuilt", changes.rebuilt));
        }
    }
    lines.extend(switch.iter().cloned());
    if lines.is_empty() {
        return lines;
    }
    [format!("\n{deployment}:")].into_iter().chain(lines.into_iter().map(|line| format!("  {line}"))).collect()
}
