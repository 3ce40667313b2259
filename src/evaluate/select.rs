//! Selects the deployments that a source takes of its flake, by their names. The others are never evaluated. No I/O.
//!
//! A pattern is compared with the name. A pattern that begins with an output, such as `homeConfigurations.*`, is compared
//! with the names in that output only. `clavel.deployments.NAME` refines the platform's host of that name where there is
//! one, and is selected with it. Units and Agents follow the deployments (`assemble`), so all of them are evaluated.

use std::collections::BTreeSet;

use super::outputs::{FlakeOutput, Item};
use crate::model::{Pattern, Source};

/// The part of a flake that a source takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The items to evaluate.
    pub(super) items: Vec<Item>,
    /// The names of the deployments that are left out.
    pub(super) excluded: BTreeSet<String>,
    /// The patterns that match nothing in the flake.
    pub(super) unmatched: Vec<Pattern>,
}

/// The outputs that `source` may take something of, in the order of `Ord`, in which the names of a survey are as well: a recorded survey
/// holds where it is about the same outputs. The others are never looked at.
pub(super) fn outputs_of(source: &Source) -> Vec<FlakeOutput> {
    let mut outputs: Vec<FlakeOutput> = FlakeOutput::all().filter(|output| !is_left_out(source, *output)).collect();
    outputs.sort();
    outputs
}

fn is_left_out(source: &Source, output: FlakeOutput) -> bool {
    let is_of_it = |pattern: &Pattern| output_of(pattern).is_none_or(|of| of == output);
    let is_included = source.include.is_empty() || source.include.iter().any(is_of_it);
    matches!(output, FlakeOutput::Hosts(_)) && !is_included
        || source.exclude.iter().any(|pattern| whole_output(pattern) == Some(output))
}

/// The output that the pattern leaves out as a whole, where it is such a pattern: `homeConfigurations.*`.
fn whole_output(pattern: &Pattern) -> Option<FlakeOutput> {
    output_of(pattern).filter(|output| {
        matches!(output, FlakeOutput::Hosts(_)) && pattern.as_str() == format!("{}.*", output.path().join("."))
    })
}

/// The output in which alone the pattern selects, where it begins with one.
fn output_of(pattern: &Pattern) -> Option<FlakeOutput> {
    let begins_with = |output: &FlakeOutput| pattern.as_str().starts_with(&format!("{}.", output.path().join(".")));
    FlakeOutput::all().filter(|output| gives_deployment(*output)).find(begins_with)
}

/// Selects those of `items` that `source` takes.
pub(super) fn select(source: &Source, items: Vec<Item>) -> Selection {
    if source.selects_all() {
        return Selection { items, ..Selection::default() };
    }
    let is_host = |item: &Item| matches!(item.output, FlakeOutput::Hosts(_));
    let hosts: BTreeSet<String> = items.iter().filter(|item| is_host(item)).map(|item| item.name.clone()).collect();
    let stands_alone = |item: &Item| is_host(item) || !hosts.contains(&item.name);
    let names = |items: &[Item]| -> BTreeSet<String> { items.iter().map(|item| item.name.clone()).collect() };

    let (deployed, others): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| gives_deployment(item.output));
    let (alone, refining): (Vec<Item>, Vec<Item>) = deployed.into_iter().partition(stands_alone);
    let written = source.include.iter().chain(source.exclude.iter().filter(|pattern| whole_output(pattern).is_none()));
    let unmatched = written.filter(|pattern| !alone.iter().any(|item| matches(item, pattern))).cloned().collect();
    let (taken, left): (Vec<Item>, Vec<Item>) = alone.into_iter().partition(|item| takes(source, item));
    let names_taken = names(&taken);
    let excluded = names(&left).difference(&names_taken).cloned().collect();
    let refining = refining.into_iter().filter(|item| names_taken.contains(&item.name));
    Selection { items: taken.iter().cloned().chain(refining).chain(others).collect(), excluded, unmatched }
}

fn gives_deployment(output: FlakeOutput) -> bool {
    match output {
        FlakeOutput::Hosts(_) | FlakeOutput::Deployments => true,
        FlakeOutput::Units | FlakeOutput::Agents => false,
    }
}

fn takes(source: &Source, item: &Item) -> bool {
    let is_among = |patterns: &[Pattern]| patterns.iter().any(|pattern| matches(item, pattern));
    (source.include.is_empty() || is_among(&source.include)) && !is_among(&source.exclude)
}

fn matches(item: &Item, pattern: &Pattern) -> bool {
    if output_of(pattern).is_none() {
        return pattern.matches(&item.name);
    }
    let of_output = item.output.path().join(".");
    let in_full = item.below_output().collect::<Vec<_>>().join(".");
    [&in_full, &item.name].into_iter().any(|name| pattern.matches(&format!("{of_output}.{name}")))
}

#[cfg(test)]
mod tests {
    use super::super::platforms::PLATFORMS;
    use super::*;

    fn items() -> Vec<Item> {
        let of =
            |output: &str| FlakeOutput::Hosts(PLATFORMS.iter().find(|platform| platform.output == output).unwrap());
        let (nixos, darwin) = (of("nixosConfigurations"), of("darwinConfigurations"));
        let (home, system) = (of("homeConfigurations"), of("systemConfigs"));
        let below = |level: &str, name| Item { level: Some(level.to_owned()), ..system.item(name) };
        vec![
            nixos.item("web-1"),
            nixos.item("web-old-1"),
            darwin.item("air"),
            home.item("alice@air"),
            below("x86_64-linux", "box"),
            below("aarch64-linux", "box"),
            FlakeOutput::Deployments.item("web-1"),
            FlakeOutput::Deployments.item("web-old-1"),
            FlakeOutput::Deployments.item("router"),
            FlakeOutput::Units.item("web-old-1"),
        ]
    }

    fn patterns(patterns: &[&str]) -> Vec<Pattern> {
        patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
    }

    fn selected(include: &[&str], exclude: &[&str]) -> Selection {
        let source = Source::bare("git+https://git.example.org/fleet".parse().unwrap());
        select(&Source { include: patterns(include), exclude: patterns(exclude), ..source }, items())
    }

    fn attributes(selection: &Selection) -> Vec<String> {
        selection.items.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_pattern_everything_is_selected() {
        let all = selected(&[], &[]);
        assert_eq!((all.items.len(), all.excluded.len()), (items().len(), 0));
    }

    #[test]
    fn a_pattern_selects_by_name_and_a_refinement_follows_its_host() {
        let some = selected(&["web-*"], &["web-old-*"]);
        assert_eq!(
            attributes(&some),
            ["nixosConfigurations.web-1", "clavel.deployments.web-1", "clavel.units.web-old-1"]
        );
        let excluded: Vec<&str> = some.excluded.iter().map(String::as_str).collect();
        assert_eq!(excluded, ["air", "alice@air", "box", "router", "web-old-1"]);
    }

    #[test]
    fn a_pattern_with_an_output_selects_in_that_output_only() {
        for (exclude, left_out) in [
            ("homeConfigurations.*", vec!["alice@air"]),
            ("darwinConfigurations.*", vec!["air"]),
            ("systemConfigs.box", vec!["box"]),
            ("systemConfigs.x86_64-linux.*", vec![]),
            ("clavel.deployments.*", vec!["router"]),
            ("nixosConfigurations.*", vec!["web-1", "web-old-1"]),
            ("nixosConfigurations.air", vec![]),
        ] {
            let excluded: Vec<String> = selected(&[], &[exclude]).excluded.into_iter().collect();
            assert_eq!(excluded, left_out, "{exclude}");
        }
        let one = selected(&[], &["systemConfigs.x86_64-linux.*"]);
        assert_eq!(one.items.len(), items().len() - 1);
    }

    #[test]
    fn an_output_that_is_left_out_as_a_whole_is_never_looked_at() {
        let looked_at = |include: &[&str], exclude: &[&str]| -> Vec<String> {
            let source = Source::bare("git+https://git.example.org/fleet".parse().unwrap());
            let source = Source { include: patterns(include), exclude: patterns(exclude), ..source };
            outputs_of(&source)
                .iter()
                .map(|output| output.path()[0].to_owned())
                .take_while(|name| name != "clavel")
                .collect()
        };
        assert_eq!(
            looked_at(&[], &["homeConfigurations.*"]),
            ["darwinConfigurations", "nixosConfigurations", "systemConfigs"]
        );
        assert_eq!(looked_at(&["nixosConfigurations.web-*"], &[]), ["nixosConfigurations"]);
        assert_eq!(looked_at(&["nixosConfigurations.web-*", "air"], &["homeConfigurations.a*"]).len(), 4);
        // The pattern is about an output that nobody looks at, so it is not one that matches nothing.
        assert_eq!(selected(&[], &["homeConfigurations.*", "web-old-*"]).unmatched, []);
    }

    #[test]
    fn the_outputs_have_the_order_in_which_a_survey_lists_them() {
        let source = Source::bare("git+https://git.example.org/fleet".parse().unwrap());
        let listed: BTreeSet<FlakeOutput> = FlakeOutput::all().collect();
        assert_eq!(outputs_of(&source), listed.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_reported() {
        let some = selected(&["web-*", "homeConfiguration.*"], &["nothing"]);
        assert_eq!(some.unmatched.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["homeConfiguration.*", "nothing"]);
    }
}
