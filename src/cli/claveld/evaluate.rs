//! `claveld evaluate FLAKE`

use std::time::SystemTime;

use crate::cli::exit::{Code, Exit};
use crate::cli::output::{self, Spinner};
use crate::evaluate::{Failure, Found, Progress, evaluate};
use crate::model::{FlakeReference, Source, UnitSpecification};
use crate::nix::Nix;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The flake, as Nix writes it, without `#`.
    flake: FlakeReference,
    /// Print one JSON document in the branch's own shapes, unsigned.
    #[arg(long)]
    json: bool,
    /// How long one run of Nix may take.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: std::time::Duration,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let nix = Nix::new(arguments.timeout);
    let source = Source::bare(arguments.flake.clone());
    let evaluation = {
        let spinner = Spinner::start();
        let progress = |progress| spinner.say(said(&source, &progress));
        evaluate(&nix, &source, None, SystemTime::now().into(), &progress).await?
    };
    let found = &evaluation.found;
    if arguments.json {
        output::json(found)?;
    } else {
        show(found)?;
        failures(found.failures.iter());
    }
    if found.failures.is_empty() { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
}

/// What an evaluation is at, in a line.
pub(super) fn said(source: &Source, progress: &Progress) -> String {
    match progress {
        Progress::Locking => format!("reading {}", source.flake),
        Progress::Evaluating(locked) => match &locked.revision {
            Some(revision) => format!("evaluating {} at {}", source.flake, revision.short()),
            None => format!("evaluating {}", source.flake),
        },
        Progress::Isolating { attribute, done, of } => {
            format!("evaluating {attribute} by itself ({} of {of})", done + 1)
        }
    }
}

fn show(found: &Found) -> Result<(), Exit> {
    let unit = |name| found.units.iter().find(|unit| unit.name == name);
    let rows = found.deployments.iter().map(|deployment| {
        let specification = &deployment.specification;
        let unit = unit(specification.unit.clone());
        let told =
            |tell: fn(&UnitSpecification) -> String| unit.map_or_else(|| "-".to_owned(), |u| tell(&u.specification));
        vec![
            deployment.name.to_string(),
            specification.unit.to_string(),
            told(|unit| unit.unit_type.to_string()),
            told(|unit| unit.arch.to_string()),
            specification.template.nar_id.to_string(),
        ]
    });
    output::table(&["deployment", "unit", "type", "arch", "store path"], rows)
}

/// Tells what is broken, with Nix's own words.
pub(super) fn failures<'a>(failures: impl Iterator<Item = &'a Failure>) {
    for failure in failures {
        output::remark(format_args!("\nbroken: {}\n{}", failure.attribute, output::indented(&failure.error)));
    }
}
