//! The closures that bundles carry: opened when a pass has something to realise, and served to Nix until its end.
//!
//! Nobody trusts them: the keys and the pins of a deployment decide, as with every cache. `loopback` serves them.

use super::loopback::{LoopbackAddress, LoopbackServer, ServedBundle};
use super::realise::error::RealiseError;
use crate::closures::ClosureBundle;
use crate::config::AgentConfig;
use crate::git::{BundleError, BundleFiles, BundleSearchError, on_medium};
use crate::model::{NarTemplateSpecification, Substituter, describe_error};

/// The most bundles with closures that are served at a time. Of more, those that were written last count.
const MAX_BUNDLES: usize = 16;
/// The most caches that a deployment has, those on sticks among them.
const MAX_CACHES: usize = 32;

/// The closures that the bundles of the configuration carry.
#[derive(Debug, Default)]
pub(super) struct Carried {
    server: Option<LoopbackServer>,
    /// Why a bundle is not served.
    problems: Vec<String>,
}

impl Carried {
    /// Opens the bundles with closures, and serves them, at the former address if possible.
    pub(super) async fn open(config: &AgentConfig, former: Option<LoopbackAddress>) -> Self {
        let patterns: Vec<BundleFiles> = config.mirrors.iter().filter_map(|mirror| mirror.bundle()).cloned().collect();
        if patterns.is_empty() {
            return Self::default();
        }
        let opened = on_medium("bundles", config.fetch_deadline, move || open_all(&patterns)).await;
        let (bundles, problems) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return Self::without_server("the bundles do not answer; plug the stick in again".to_owned()),
            Err(error) => return Self::without_server(format!("cannot start a thread that opens bundles: {error}")),
        };
        for problem in &problems {
            // Where the deployment's own caches have everything, nothing else tells it.
            tracing::warn!(%problem, "the closures of a bundle are not used");
        }
        if bundles.is_empty() {
            return Self { server: None, problems };
        }
        match LoopbackServer::start(bundles, former).await {
            Ok(server) => Self { server: Some(server), problems },
            Err(error) => Self::without_server(format!("cannot serve the closures of bundles on 127.0.0.1: {error}")),
        }
    }

    fn without_server(problem: String) -> Self {
        Self { server: None, problems: vec![problem] }
    }

    /// Where its server listens.
    pub(super) fn address(&self) -> Option<LoopbackAddress> {
        self.server.as_ref().map(LoopbackServer::address)
    }

    /// The template, with what is carried in front of its caches.
    pub(super) fn in_front_of(&self, template: &NarTemplateSpecification) -> NarTemplateSpecification {
        let caches = self.server.iter().flat_map(LoopbackServer::caches);
        let carried: Vec<Substituter> = caches.filter_map(|(url, _)| url.parse().ok()).collect();
        let room = MAX_CACHES.saturating_sub(template.substituters.len());
        let skipped = carried.len().saturating_sub(room);
        let all: Vec<Substituter> =
            carried.into_iter().skip(skipped).chain(template.substituters.iter().cloned()).collect();
        match all.try_into() {
            Ok(substituters) => NarTemplateSpecification { substituters, ..template.clone() },
            Err(_) => template.clone(),
        }
    }

    /// The error of a realisation with these caches: it has the names of the bundles in place of the URLs, and what was wrong with the
    /// bundles.
    pub(super) fn explain(&self, error: RealiseError) -> RealiseError {
        let mut problems = self.problems.clone();
        problems.extend(self.server.iter().flat_map(LoopbackServer::take_problems));
        let names: Vec<(String, String)> = self
            .server
            .iter()
            .flat_map(LoopbackServer::caches)
            .map(|(url, name)| (url, format!("file://{name}")))
            .collect();
        let error = error.renaming(&names);
        if problems.is_empty() {
            return error;
        }
        RealiseError::Carried { problems: problems.join("; "), source: Box::new(error) }
    }
}

/// Opens the bundles with closures. A git bundle alone has nothing to serve, and one that cannot be read is a problem to tell.
fn open_all(patterns: &[BundleFiles]) -> (Vec<ServedBundle>, Vec<String>) {
    let (mut bundles, mut problems) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let found = match pattern.find() {
            Ok(found) => found,
            Err(BundleSearchError::NoMatch(_)) => continue,
            Err(error) => {
                problems.push(describe_error(&error));
                continue;
            }
        };
        for files in found {
            let name = || files.exact().unwrap_or(std::path::Path::new("")).display().to_string();
            let opened = match files.open() {
                Ok(file) => ClosureBundle::open(file).map_err(|error| describe_error(&error)),
                Err(BundleError::NoFile) => Ok(None),
                Err(error) => Err(describe_error(&error)),
            };
            match opened {
                Ok(Some(bundle)) => bundles.push(ServedBundle { name: name(), bundle }),
                Ok(None) => {}
                Err(error) => problems.push(format!("{}: {error}", name())),
            }
        }
    }
    let surplus = bundles.len().saturating_sub(MAX_BUNDLES);
    bundles.drain(..surplus);
    (bundles, problems)
}
